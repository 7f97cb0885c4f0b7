"""What a page runs models with: pinned, downloaded once, and refused where it is another file."""

import io
import tarfile
from pathlib import Path

import pytest

from mobilekd.device import web_runtime
from mobilekd.errors import MissingToolError, VerificationError
from tests.device.tools import need


def silent(line: str) -> None:
    pass


@pytest.fixture
def no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the real npm find nothing: an empty cache, and no network."""
    need("npm")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_offline", "true")


def lay(state: Path, content: bytes) -> Path:
    tarball = web_runtime.laid_tarball(state)
    tarball.parent.mkdir(parents=True)
    tarball.write_bytes(content)
    return tarball


def test_integrity_is_written_as_npm_does(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    # printf '' | openssl dgst -sha512 -binary | base64
    assert web_runtime.integrity_of(tmp_path / "empty") == (
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
    )


def test_nothing_is_there_before_it_was_fetched(tmp_path: Path) -> None:
    assert web_runtime.find(tmp_path) is None


def test_without_a_registry_the_error_has_npm_s_sentence_and_the_command(no_registry: None, tmp_path: Path) -> None:
    with pytest.raises(
        MissingToolError, match=r"onnxruntime-web 1\.30\.0 could not be downloaded: request to"
    ) as caught:
        web_runtime.kit(tmp_path / "state", silent)
    assert caught.value.hint.startswith("needs npm's registry once; the file belongs into")
    assert caught.value.hint.endswith("onnxruntime-web@1.30.0")


@pytest.mark.parametrize("head", ["npm error", "npm ERR!"])
def test_the_sentence_of_an_old_npm_is_found_as_that_of_a_new_one(head: str) -> None:
    said = web_runtime.npm_sentence(f"{head} code ENOTCACHED\n{head} request to the registry failed\n")
    assert said == "request to the registry failed"


def test_without_npm_the_tarball_may_be_laid_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="npm is not on PATH") as caught:
        web_runtime.kit(tmp_path, silent)
    assert str(web_runtime.laid_tarball(tmp_path).parent) in caught.value.hint


def test_a_tarball_of_another_hash_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    lay(tmp_path, b"no archive at all")
    with pytest.raises(VerificationError, match=r"has integrity sha512-\S+, and sha512-q0y\+\S+ was pinned") as caught:
        web_runtime.kit(tmp_path, silent)
    assert (caught.value.code, web_runtime.find(tmp_path)) == ("MKD-708", None)


def test_a_tarball_of_another_hash_leaves_nothing(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as made:
        made.addfile(tarfile.TarInfo("package/../../escaped"))
    tarball = lay(tmp_path / "state", archive.getvalue())
    with pytest.raises(VerificationError):
        web_runtime.kit(tmp_path / "state", silent)
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [tarball]
