"""A bucket of an S3 server on loopback, a folder, and servers with a flaw."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mobilekd.store.interface import ObjectStore
from mobilekd.store.opening import open_store
from tests.release.workshop import Workshop

BUCKET = "bucket"


@contextmanager
def s3_server(flaw: str) -> Iterator[str]:
    """Give the endpoint of a server."""
    command = [sys.executable, "-m", "tests.store.s3_server", flaw]
    root = Path(__file__).parents[2]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=root, text=True, **pipes) as server:
        assert server.stdout
        assert server.stdin
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


@pytest.fixture(scope="session")
def flawed() -> Iterator[Callable[[str], str]]:
    """Return the endpoint of a server with this flaw; each is started once."""
    started: dict[str, str] = {}
    with ExitStack() as servers:

        def endpoint(flaw: str) -> str:
            if flaw not in started:
                started[flaw] = servers.enter_context(s3_server(flaw))
            return started[flaw]

        yield endpoint


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def s3_url(credentials: None, flawed: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store in a bucket."""
    endpoint = flawed("none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    make_bucket(endpoint)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store: a folder, then a bucket."""
    return request.getfixturevalue("s3_url") if request.param == "s3" else str(tmp_path / "store")


@pytest.fixture
def store(url: str) -> ObjectStore:
    return open_store(url)


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles of one name, that no test may change."""
    first = Workshop(tmp_path_factory.mktemp("first")).bundle()
    second = Workshop(tmp_path_factory.mktemp("second"), note="another").bundle()
    return first / "bundle.zip", second / "bundle.zip"


def make_bucket(endpoint: str) -> None:
    """Make the bucket; nothing happens where there is one."""
    import urllib.request

    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")):
        pass
