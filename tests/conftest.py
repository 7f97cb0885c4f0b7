"""A place to work for every test, and the toy pipeline's."""

import os
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from mobilekd.cache import Cache
from mobilekd.pipeline import Workshop
from mobilekd.profile import Deployment, Profile, Target
from tests.toys import Silent

# How long an input takes is the machine's doing: one that does other work may stop a test for a second.
hypothesis.settings.register_profile("without-deadline", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("without-deadline")


@pytest.fixture
def watcher() -> Silent:
    return Silent()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def workshop(cache: Cache, watcher: Silent, tmp_path: Path) -> Workshop:
    return Workshop(cache, tmp_path / "toolchains", watcher)


@pytest.fixture
def profile() -> Profile:
    deploy = tuple(Deployment(backend=backend) for backend in ("one", "two"))
    return Profile(name="toy", title="Toy", target=Target(os="linux", abi="x86_64"), deploy=deploy)


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOBILEKD_CACHE", str(tmp_path / "default-cache"))
    monkeypatch.delenv("MOBILEKD_DEBUG", raising=False)
    monkeypatch.delenv("MOBILEKD_SHARED_CACHE", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _unicode_tables() -> None:
    """Let hypothesis make its tables of Unicode, seconds in a new clone, outside of a test whose inputs it times."""
    hypothesis.find(strategies.text(), lambda _: True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Spread files over the processes of `pytest -n`; see `tests.spread`."""
    from tests.spread import Spread

    return Spread(config, log)


def pytest_collection_modifyitems(config, items):
    """Under `pytest -n`, begin with the files that take longest; the order of the others stays random."""
    if hasattr(config, "workerinput"):
        from tests.spread import rank

        items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Make a skipped test a failure where everything is meant to be there: MOBILEKD_CI is set by .ci/run."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("MOBILEKD_CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and MOBILEKD_CI is set: {report.longrepr}"
    return report


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """Return where a sweep keeps its study."""
    return str(tmp_path / "study.journal")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return where a sweep writes."""
    return tmp_path / "sweep"
