"""A server for one page on the loopback interface: files, one command after the other, and what the page answers."""

import hmac
import itertools
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mobilekd.transport import Completed
from mobilekd.transports._page_requests import LoopbackServer

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_OUTPUT_WORDS = ("--out", "--profile-out")
_POLL_S = 10.0
_LOOK_S = 0.25


class Hello(BaseModel):
    """What the page says of its browser when it is ready."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    user_agent: str
    hardware_concurrency: int
    cross_origin_isolated: bool
    wasm_simd: bool
    wasm_threads: bool
    clock_us: float


class _Done(BaseModel):
    """How a command ended in the page."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: int
    returncode: int
    stdout: str
    stderr: str


class PageServer:
    """Serves the files of a folder to one page, whose address nobody can guess; nothing else is answered."""

    def __init__(self, place: Callable[[str], Path]) -> None:
        """Take note of where files are.

        Args:
            place: Returns where a name of the device is on this host.
        """
        self._place = place
        self._token = secrets.token_urlsafe(24)
        self._changed = threading.Condition()
        self._hello: Hello | None = None
        self._command: tuple[int, tuple[str, ...]] | None = None
        self._taken = 0
        self._done: _Done | None = None
        self._is_gone = False
        self._trouble = ""

    def __enter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = LoopbackServer(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; what the page still asks for gets no answer."""
        self.page_ended("the server has stopped")
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        """Return the value of the Host header that requests must have: no other name may lead here."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Return the address below which everything lies; it is a secret between us and the page."""
        return f"http://{self.host}/{self._token}/"

    def wait_ready(self, timeout_s: float, is_alive: Callable[[], bool]) -> Hello | None:
        """Return what the page said of itself; None when it was not ready in time, or its browser ended."""
        self._wait(lambda: self._hello is not None, timeout_s, is_alive)
        return self._hello

    def run(self, argv: Sequence[str], timeout_s: float, is_alive: Callable[[], bool]) -> Completed | None:
        """Let the page run a command; None when it was not done in time.

        A page or browser that dies has ended without an answer, with exit code 1.
        """
        with self._changed:
            number = (self._command[0] if self._command else 0) + 1
            self._command, self._done = (number, tuple(argv)), None
            self._changed.notify_all()
        self._wait(lambda: self._done is not None, timeout_s, is_alive)
        if self._done is not None:
            return Completed(self._done.returncode, self._done.stdout, self._done.stderr)
        return Completed(1, "", self._trouble) if self._is_gone else None

    def page_ended(self, trouble: str) -> None:
        """Take note that the page is no more."""
        with self._changed:
            self._trouble = self._trouble or trouble
            self._is_gone = True
            self._changed.notify_all()

    def name_in(self, path: str, host: str | None) -> str | None:
        """Return the name that a request is for; None where it does not come from our page."""
        start, _, name = path.removeprefix("/").partition("/")
        is_ours = hmac.compare_digest(start.encode(), self._token.encode()) and host == self.host
        return name if is_ours and _NAME.fullmatch(name) else None

    def file(self, name: str) -> Path | None:
        """Return the file that the page asks for."""
        path = self._place(name)
        return path if path.is_file() else None

    def output(self, name: str) -> Path | None:
        """Return where an output goes; None for a name that the present command does not write."""
        argv = self._command[1] if self._command else ()
        outputs = {value for word, value in itertools.pairwise(argv) if word in _OUTPUT_WORDS}
        return self._place(name) if name in outputs else None

    def next_command(self) -> Mapping[str, Any] | None:
        """Return the next command for the page, waited for a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_gone or (self._command or (0,))[0] > self._taken, _POLL_S)
            if self._is_gone or self._command is None or self._command[0] <= self._taken:
                return None
            self._taken = self._command[0]
            return {"id": self._command[0], "argv": list(self._command[1])}

    def said(self, name: str, content: bytes) -> bool:
        """Take what the page says; return whether it was as expected."""
        try:
            if name == "hello":
                self._hello = Hello.model_validate_json(content)
            else:
                done = _Done.model_validate_json(content)
                if self._command is None or done.id != self._command[0]:
                    return False
                self._done = done
        except ValidationError as cause:
            self.page_ended(f"the page said {name} in words that are not ours: {cause.errors()[0]['msg']}")
            return False
        with self._changed:
            self._changed.notify_all()
        return True

    def _wait(self, is_over: Callable[[], bool], timeout_s: float, is_alive: Callable[[], bool]) -> None:
        until_s = time.monotonic() + timeout_s
        with self._changed:
            while not is_over() and not self._is_gone and (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(min(left_s, _LOOK_S))
                if not is_alive() and not is_over():
                    self.page_ended("the browser ended")
