"""Where a command works, and who watches. Imports nothing heavy before it is asked for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilekd.console import Console
    from mobilekd.pipeline import Workshop


@contextmanager
def open_workshop(root: Path | None, events: Path | None = None, shared: str = "") -> Iterator["Workshop"]:
    """Give where a build works; libraries that print do it on stderr.

    Args:
        root: The cache; None for the default one.
        events: Where training writes curves.
        shared: URL of the shared cache; empty for that of MOBILEKD_SHARED_CACHE, or none.
    """
    from mobilekd.cache import Cache
    from mobilekd.pipeline import Workshop
    from mobilekd.processes import runner
    from mobilekd.shared_cache import SharedCache

    url = shared or os.environ.get("MOBILEKD_SHARED_CACHE", "")
    cache = Cache(root or Cache.default_root())
    with runner() as run, watched() as console:
        yield Workshop(cache, Cache.default_root() / "toolchains", console, events, run, SharedCache(url, console.say))


@contextmanager
def watched() -> Iterator["Console"]:
    """Give a console, and take its bars away in the end."""
    from mobilekd.console import Console, stdout_for_the_result

    console = Console()
    try:
        with stdout_for_the_result():
            yield console
    finally:
        console.close()
