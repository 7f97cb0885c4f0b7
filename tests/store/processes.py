"""What other processes do to a store in a test. A fork server has the imports done, so that one starts in 20 ms."""

import multiprocessing
import os
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from mobilekd.publish import PublishOptions, publish
from mobilekd.store.interface import ObjectStore, Stored
from mobilekd.store.objects import read_document
from mobilekd.store.opening import open_store


def context() -> ForkServerContext:
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(["tests.store.processes"])
    return chosen


def start_publisher(bundle: Path, url: str) -> BaseProcess:
    """Start to publish; return when all is checked and the store is asked for the first time."""
    begun = context().Event()
    process = context().Process(target=run_publisher, args=(bundle, url, dict(os.environ), begun))
    process.start()
    assert begun.wait(300)
    return process


def run_publisher(bundle: Path, url: str, settings: dict[str, str], begun: Event) -> None:
    os.environ.update(settings)
    store = open_store(url)
    get = store.get

    def telling_get(name: str) -> Stored | None:
        begun.set()
        return get(name)

    store.get = telling_get  # type: ignore[method-assign]
    publish(bundle, store, PublishOptions())


def seconds_to_publish(bundle: Path, url: str) -> float:
    """Return how long a publisher works after its first question."""
    process = start_publisher(bundle, url)
    began = time.monotonic()
    process.join()
    return time.monotonic() - began


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
