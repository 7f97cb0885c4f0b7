"""A page in a real browser: what it asks for, what it complains of, and what can be seen of it."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHROMIUM = "/usr/bin/chromium"
DESKTOP, PHONE = (1280, 900), (390, 844)
LIMIT_MS = 120_000
"""For what a browser does in a second on an idle machine."""

_LOOK = """() => {
  const seen = element => element.getBoundingClientRect()
  const wide = [...document.querySelectorAll("body *")].filter(one => {
    if (seen(one).right <= innerWidth + 1 || seen(one).width === 0) return false
    for (let box = one.parentElement; box; box = box.parentElement)
      if (getComputedStyle(box).overflowX !== "visible") return false
    return true
  })
  return {
    overflow: document.scrollingElement.scrollWidth - innerWidth,
    wide: wide.slice(0, 5).map(one => `${one.tagName} ${one.className} ${(one.textContent || "").slice(0, 40)}`),
    images: [...document.images].map(one => [one.getAttribute("src"), one.naturalWidth]),
    tables: document.querySelectorAll("main table, article table").length,
    plots: [...document.querySelectorAll("main svg:not(svg svg)")].filter(one => one.checkVisibility())
      .map(one => [seen(one).width, seen(one).height]),
  }
}"""


@dataclass
class Seen:
    """What a page showed and did.

    Attributes:
        overflow: Pixels that the page is wider than the window; wide tables scroll in boxes of their own.
        wide: The elements that stick out of it.
        images: (source, width of its pixels); 0 is an image that did not load.
        plots: (width, height) of each drawing that is not folded away.
        faults: Errors of the console, failed requests, and requests to other hosts.
    """

    overflow: int
    wide: list[str]
    images: list[tuple[str, int]]
    tables: int
    plots: list[tuple[float, float]]
    faults: list[str] = field(default_factory=list)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: the test looks at the browser's side."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Give the address of a server of this folder, on the loopback only."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=LIMIT_MS)
        yield browser
        browser.close()


class Visitor:
    """Opens each page once, and keeps what it looks like at each width."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self._seen: dict[str, dict[tuple[int, int], Seen]] = {}

    def look(self, address: str, size: tuple[int, int]) -> Seen:
        if address not in self._seen:
            self._seen[address] = self._open(address)
        return self._seen[address][size]

    def _open(self, address: str) -> dict[tuple[int, int], Seen]:
        faults: list[str] = []
        with self.browser.new_context() as context:
            page = context.new_page()
            page.on("console", lambda line: faults.append(f"console: {line.text}") if line.type == "error" else None)
            page.on("pageerror", lambda error: faults.append(f"error: {error}"))
            page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
            page.on("request", lambda one: faults.append(f"left the host: {one.url}") if leaves(one.url) else None)
            page.goto(address, wait_until="networkidle", timeout=LIMIT_MS)
            looks = {size: _look_at(page, size) for size in (DESKTOP, PHONE)}
        return {size: Seen(**look, faults=faults) for size, look in looks.items()}


def _look_at(page: Any, size: tuple[int, int]) -> dict[str, Any]:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seen: dict[str, Any] = page.evaluate(_LOOK)
    return seen


def leaves(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in {"file", "data", "blob", "about"} and parts.hostname != "127.0.0.1"
