"""The requests of a page: its files, the next command, what it says, and what it writes."""

import contextlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilekd.transports._page_server import PageServer

_TYPES = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript", ".wasm": "application/wasm"}
_ISOLATION = {
    # The first two give the page SharedArrayBuffer and the finer of the two clocks that browsers have.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_CHUNK = 1 << 20
_MOST_ANSWER_BYTES = 16 << 20


class LoopbackServer(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1 for the requests of one page."""

    daemon_threads = True

    def __init__(self, page: "PageServer") -> None:
        self.page = page
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that the browser cut; what counts is what the page answered."""


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    server_version, sys_version = "mobilekd", ""
    timeout = 30.0  # of a connection that says nothing: each has a thread

    def do_GET(self) -> None:
        """Send a file."""
        name = self._name()
        path = self.server.page.file(name) if name else None
        if path is None:
            self._answer(404)
            return
        self._head(200, path.stat().st_size, _TYPES.get(path.suffix, "application/octet-stream"))
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                self.wfile.write(chunk)

    def do_POST(self) -> None:
        """Take what the page says, or give it what to do."""
        name = self._name()
        if name == "alive":
            self._hold()
        elif name == "next":
            command = self.server.page.next_command()
            self._answer(204) if command is None else self._answer(200, json.dumps(command).encode())
        elif name in ("hello", "done") and 0 <= self._length <= _MOST_ANSWER_BYTES:
            self._answer(204 if self.server.page.said(name, self.rfile.read(self._length)) else 400)
        else:
            self._answer(404)

    def do_PUT(self) -> None:
        """Take an output of the present command; it appears when it is whole."""
        name = self._name()
        path = self.server.page.output(name) if name else None
        if path is None:
            self._answer(404)
            return
        part, left = path.with_name(f".{path.name}.part"), self._length
        with part.open("wb") as stream:
            while left > 0 and (chunk := self.rfile.read(min(left, _CHUNK))):
                stream.write(chunk)
                left -= len(chunk)
        if left:
            part.unlink()
            self._answer(400)
            return
        part.replace(path)
        self._answer(204)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that the base class refuses, as by a method that is not known here, like any wrong one."""
        del code, message, explain
        self._answer(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Print nothing: the address of the page is a secret."""

    @property
    def _length(self) -> int:
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdigit() else -1

    def _name(self) -> str | None:
        return self.server.page.name_in(self.path, self.headers.get("Host"))

    def _hold(self) -> None:
        """Keep a connection open for as long as the page lives."""
        self._head(200, None, "text/plain")
        self.wfile.flush()
        self.connection.settimeout(None)
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.server.page.page_ended("the page died: its browser closed it, as it does when memory runs out")

    def _answer(self, status: int, content: bytes = b"") -> None:
        self._head(status, len(content), "application/json")
        self.wfile.write(content)

    def _head(self, status: int, size: int | None, kind: str) -> None:
        self.send_response(status)
        for name, value in _ISOLATION.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        if size is not None:
            self.send_header("Content-Length", str(size))
        self.end_headers()
