"""Code that the docs show in full: the reader of a bundle, and a distillation method of a user's own."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilekd.release.bundle import inspect
from tests.release.workshop import Workshop

from .commands import ROOT
from .tables import SHRINK

COMMAND = "mobilekd train --method kd --method logit_match --set distill.method_options.logit_match.clip=5.0"
Reader = Callable[[Path], tuple[str, dict, dict]]


def python_of(page: str) -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def read_bundle() -> Reader:
    names: dict[str, Any] = {}
    exec(compile(python_of("bundle-format.md"), "bundle-format.md", "exec"), names)
    return names["read_bundle"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Workshop(tmp_path_factory.mktemp("format")).bundle() / "bundle.zip"


def test_the_reader_of_the_docs_reads_a_bundle(read_bundle: Reader, bundle: Path) -> None:
    digest, manifest, measured = read_bundle(bundle)
    assert digest == inspect(bundle)["digest"] == measured["bundle"]
    assert manifest["labels"][0] == "digit 0"


def test_the_docs_name_every_key_of_the_manifests(read_bundle: Reader, bundle: Path) -> None:
    page = (ROOT / "docs/bundle-format.md").read_text(encoding="utf-8")
    _, manifest, measured = read_bundle(bundle)
    keys = {*manifest, *measured, *manifest["models"][0], *manifest["preprocessing"], *manifest["profile"]}
    keys |= {
        *manifest["models"][0]["input"],
        *manifest["models"][0]["options"],
        *manifest["reference"],
        *manifest["dataset"],
    }
    assert sorted(key for key in keys if f"`{key}`" not in page) == []


def changed(bundle: Path, name: str, content: bytes) -> Path:
    """Return a copy of the bundle in which one file has other content."""
    out = bundle.with_name("changed.zip")
    with zipfile.ZipFile(bundle) as before, zipfile.ZipFile(out, "w") as after:
        for one in before.namelist():
            after.writestr(one, content if one == name else before.read(one))
    return out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("labels.txt", "labels.txt: not the file that was packed"),
        ("measurements/latency.json", "latency.json: not the file that was packed"),
    ],
)
def test_the_reader_of_the_docs_refuses_a_file_that_was_changed(
    name: str, said: str, read_bundle: Reader, bundle: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read_bundle(changed(bundle, name, b"{}"))


def test_the_reader_of_the_docs_refuses_measurements_of_another_bundle(read_bundle: Reader, bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    text = json.dumps({**manifest, "pipeline": "another"}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with pytest.raises(ValueError, match="of another bundle"):
        read_bundle(changed(bundle, "manifest.json", text.encode()))


@pytest.mark.slow
def test_the_method_of_the_docs_trains_a_student(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "mobilekd", tmp_path / "mobilekd", ignore=ignored)
    for folder in ("pipelines", "devices", "tests"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "mobilekd/methods/logit_match.py").write_text(python_of("extending.md"))
    short = next(options for pattern, options in SHRINK if "train|sweep" in pattern)
    words = [*COMMAND.split()[1:], *short, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "MOBILEKD_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "mobilekd", *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "logit_match" in done.stderr


def test_the_command_for_that_method_stands_in_the_docs() -> None:
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    assert f"    {COMMAND}\n" in page
