"""A browser of this host as a device: one page of ours, without a window, that takes mkdrun's words."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from mobilekd.device import web_runtime
from mobilekd.device.browsers import Browser, is_sandboxed, start_argv
from mobilekd.device.guarded import Guarded
from mobilekd.errors import DeviceError
from mobilekd.transport import PATIENT, Completed, DeviceFacts, LatencyKind, Patience
from mobilekd.transports._page_server import Hello, PageServer
from mobilekd.transports.local import Local

_READY_TIMEOUT_S = 90.0
_LOG_LINES = 5
_REMOVE_TRIES, _REMOVE_PAUSE_S = 200, 0.05


@dataclass(frozen=True, slots=True)
class BrowserFacts(DeviceFacts):
    """What a browser says of itself beside what every device does; `cores` is its hardwareConcurrency.

    Attributes:
        user_agent: As it tells servers.
        host_cpu: The processor that it runs on.
        runtime: What runs the models in it.
        is_cross_origin_isolated: Without it a page has no threads, and a coarser clock.
        is_sandboxed: Whether Chromium's own sandbox is on.
        clock_us: Smallest step of the page's clock.
    """

    user_agent: str
    host_cpu: str
    runtime: str
    is_cross_origin_isolated: bool
    is_sandboxed: bool
    clock_us: float


class Web(Local):
    """A page in a browser without a window, on this host, which is held as by `Local`."""

    latency_kind: ClassVar[LatencyKind] = "wall"

    def __init__(self, root: Path, browser: Browser, kit: Mapping[str, Path], patience: Patience = PATIENT) -> None:
        """Take note of the state folder, the browser, and the files of the page."""
        super().__init__(root, patience)
        self._browser = browser
        self._kit = kit
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take this host and open the page.

        Raises:
            DeviceError: Another process did not let go of it in time, or the page was not ready in time.
        """
        super().__enter__()
        with contextlib.ExitStack() as stack:
            stack.callback(super().__exit__, None, None, None)
            self.push(self._kit)
            self._page = stack.enter_context(PageServer(self._held.path))
            self._process, self._log = self._started(stack)
            hello = self._page.wait_ready(_READY_TIMEOUT_S, lambda: self._process.is_running)
            if hello is None:
                late = f"did not open the page within {_READY_TIMEOUT_S:g} s"
                what = late if self._process.is_running else "ended before it opened the page"
                raise DeviceError(
                    f"{self._browser.version} {what}{self._said()}",
                    hint="mobilekd explain MKD-513",
                    code="MKD-513",
                )
            self._hello: Hello = hello
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the browser with all its processes, and let the host go."""
        self._closing.close()

    def run(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
        """See `Transport.run`; the page's own module runs there, every other command on this host."""
        if argv[0] != web_runtime.PROGRAM:
            return super().run(argv, timeout_s=timeout_s, env=env)
        done = self._page.run(argv, timeout_s, lambda: self._process.is_running)
        if done is not None:
            return done
        self._process.stop()
        raise DeviceError(
            f"the page in {self._browser.version} ran past {timeout_s:g} s and was ended",
            hint="give it more time, or fewer runs",
            code="MKD-504",
        )

    def facts(self) -> DeviceFacts:
        """Return what the page was told by its browser."""
        host = super().facts()
        features = {"simd": self._hello.wasm_simd, "threads": self._hello.wasm_threads}
        return BrowserFacts(
            name=self._browser.version,
            machine="wasm32",
            features=tuple(name for name, is_there in features.items() if is_there),
            cores=self._hello.hardware_concurrency,
            memory_bytes=None,
            system=host.system,
            user_agent=self._hello.user_agent,
            host_cpu=f"{host.name} ({host.machine})",
            runtime=web_runtime.pin().told,
            is_cross_origin_isolated=self._hello.cross_origin_isolated,
            is_sandboxed=is_sandboxed(),
            clock_us=round(self._hello.clock_us, 3),
        )

    def _started(self, stack: contextlib.ExitStack) -> tuple[Guarded, Path]:
        """Start the browser; it ends before the server and the folder do."""
        home = self._held.work / "browser"
        home.mkdir(mode=0o700)
        short = str(self._held.short())  # it makes a socket there
        # A command line can be read by every user of this host, and the page's address is a secret: a file has it.
        start = home / "start.html"
        start.write_text(f'<meta http-equiv="refresh" content="0; url={self._page.url}{web_runtime.PAGE}">')
        log = home / "log"
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "TMPDIR": short, "LC_ALL": "C.UTF-8"}
        process = Guarded(start_argv(self._browser, home / "profile", start.as_uri()), log, env=env)
        stack.callback(_end, process, home)
        return process, log

    def _said(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line for line in lines if ":FATAL:" in line] or lines
        return "".join(f"\n    {line}" for line in lines[-_LOG_LINES:])


def _end(process: Guarded, home: Path) -> None:
    """Kill the browser, then what it started, which is of the guard's group; then no file of theirs is left."""
    process.stop()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.group, signal.SIGKILL)
    for _ in range(_REMOVE_TRIES):  # one of them may still write
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            break
        time.sleep(_REMOVE_PAUSE_S)
