"""Prepare a browser for a profile of web pages: fetch the pinned runtime, and let a page load it once."""

from collections.abc import Iterator
from pathlib import Path

from mobilekd.device import browsers, web_runtime
from mobilekd.device.browsers import Browser
from mobilekd.device.runner import Job
from mobilekd.errors import DeviceError
from mobilekd.profile import Profile
from mobilekd.setup_steps import Step, Work, done, told
from mobilekd.stage import Progress
from mobilekd.transport import Patience
from mobilekd.transports.web import Web

_TIMEOUT_S = 120.0
_EXIT_IO = 6


def setup(profile: Profile, state: Path, progress: Progress) -> tuple[Step, ...]:
    """Return the steps that prepared the browser of a profile, each with its time.

    Args:
        profile: Whose browser.
        state: Folder of this host for what is built and downloaded for devices.
        progress: Told of each step that ends.

    Raises:
        ConfigError: The folder can't be written.
        MissingToolError: There is no browser, or the runtime could not be downloaded.
        StageError: The disk is full.
        DeviceError: The page does not open, or does not load the runtime.
        VerificationError: The downloaded runtime is not the one that was pinned.
    """
    browser = browsers.find_browser(profile.device.browser or "")
    with told(state):
        state.mkdir(parents=True, exist_ok=True)
        return tuple(done(work, progress) for work in _works(browser, state, progress))


def _works(browser: Browser, state: Path, progress: Progress) -> Iterator[Work]:
    yield Work("browser", None, lambda: f"{browser.version}: {browser.program}")
    yield Work(
        web_runtime.pin().told,
        lambda: web_runtime.find(state) is not None,
        lambda: str(web_runtime.kit(state, progress.say)[web_runtime.PAGE_RUNTIME].parent),
    )
    yield Work("check", None, lambda: _check(browser, state, progress))


def _check(browser: Browser, state: Path, progress: Progress) -> str:
    """Open the page, and let it load the runtime: it does before it asks for the model, which is not there."""
    job = Job(backend="onnxruntime", model="none", inputs=("none",), outputs=(), samples=1)
    with Web(state, browser, web_runtime.kit(state, progress.say), Patience(say=progress.say)) as page:
        loaded = page.run(job.argv((), (), web_runtime.PROGRAM), timeout_s=_TIMEOUT_S)
        facts = page.facts()
    if loaded.returncode != _EXIT_IO:
        raise DeviceError(
            f"a page in {browser.version} can't load {web_runtime.pin().told}: {loaded.stdout or loaded.stderr}",
            hint="mobilekd explain MKD-513",
            code="MKD-513",
        )
    return f"a page loads {web_runtime.pin().told}: {facts.machine} with {', '.join(facts.features)}"
