"""The browser that stands for a page's users: which one is here, and the words that start it for one page of ours."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mobilekd.errors import MissingToolError

VARIABLE = "MOBILEKD_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")
_INSTALL = "apt-get install --yes --no-install-recommends chromium"
_TIMEOUT_S = 30.0
_FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--password-store=basic",
    "--use-mock-keychain",
    "--mute-audio",
    "--disable-gpu",
    # Containers have 64 MB of /dev/shm; a page that needs more of it dies there.
    "--disable-dev-shm-usage",
    # A page that nobody looks at is slowed down.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    # Nothing but this host can be reached, by name or through a proxy.
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser of this host.

    Attributes:
        program: Its path.
        version: What it calls itself, as "Chromium 156.0.8078.108".
    """

    program: str
    version: str


def find_browser(wanted: str = "") -> Browser:
    """Return the browser to use: the one that is named, else that of $MOBILEKD_CHROMIUM, else the first on PATH.

    Args:
        wanted: A name on PATH or a path, as `device.browser` of a profile; empty for none.

    Raises:
        MissingToolError: There is none, or it does not start. One that is named is never replaced.
    """
    named = wanted or os.environ.get(VARIABLE, "")
    names = (named,) if named else _NAMES
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        origin = "device.browser" if wanted else f"${VARIABLE}"
        told = (
            f"{origin} is {named!r}, which is no program here"
            if named
            else f"no browser is on PATH: {', '.join(names)}"
        )
        other = "change or leave out device.browser" if wanted else f"name one: export {VARIABLE}=PROGRAM"
        raise MissingToolError(told, hint=f"{_INSTALL}; or {other}", code="MKD-301")
    return Browser(program, _version(program))


def is_sandboxed() -> bool:
    """Return whether Chromium's own sandbox is on: it refuses to start as root with it."""
    return os.geteuid() != 0


def start_argv(browser: Browser, profile: Path, page: str) -> list[str]:
    """Return the words that open one page, with a profile of its own and no way out of this host."""
    sandbox = () if is_sandboxed() else ("--no-sandbox",)
    return [browser.program, *_FLAGS, *sandbox, f"--user-data-dir={profile}", page]


def _version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise MissingToolError(f"{program} does not start: {cause}", hint=_INSTALL, code="MKD-301") from cause
    found = re.match(r"\s*(\w[\w ]*? \d+(?:\.\d+)+)", done.stdout)
    if done.returncode or found is None:
        said = (done.stdout.strip() or done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MissingToolError(f"{program} tells no version of Chromium: {said}", hint=_INSTALL, code="MKD-301")
    return found[1]
