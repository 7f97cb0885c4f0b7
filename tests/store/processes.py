"""What other processes do to a store in a test. A fork server has the imports done, so that one starts in 20 ms."""

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from mobilekd.publish import PublishOptions, publish
from mobilekd.store.interface import ObjectStore
from mobilekd.store.objects import read_document
from mobilekd.store.opening import open_store


def context() -> ForkServerContext:
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(["tests.store.processes"])
    return chosen


def start_publisher(bundle: Path, url: str) -> BaseProcess:
    process = context().Process(target=run_publisher, args=(bundle, url, dict(os.environ)))
    process.start()
    return process


def run_publisher(bundle: Path, url: str, settings: dict[str, str]) -> None:
    os.environ.update(settings)
    publish(bundle, open_store(url), PublishOptions())


def start_counter(url: str, name: str, times: int) -> BaseProcess:
    process = context().Process(target=count_up, args=(url, name, times, dict(os.environ)))
    process.start()
    return process


def count_up(url: str, name: str, times: int, settings: dict[str, str]) -> None:
    """Add one to a number in a store, so many times."""
    os.environ.update(settings)
    store = open_store(url)
    for _ in range(times):
        while not _add_one(store, name):
            pass


def _add_one(store: ObjectStore, name: str) -> bool:
    found = read_document(store, name)
    assert found
    return store.cas(name, str(int(found[0]) + 1).encode(), found[1])
