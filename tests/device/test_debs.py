"""Which repositories the private apt reads: those of the host's own release, with its keys."""

import json
from pathlib import Path

import pytest

from mobilekd.device.debs import Deb, PrivateApt, write_record
from mobilekd.device.sources import Source, of_release, read_sources, render_sources
from mobilekd.errors import MissingToolError
from tests.device.tools import need

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: stable1 stable1-updates
Components: main contrib
Signed-By: /usr/share/keyrings/k.gpg

Types: deb-src
URIs: http://sources.example/
Suites: stable1
Components: main

Enabled: no
Types: deb
URIs: http://off.example/
Suites: stable1
Components: main
"""
MAIN = Source(
    "http://mirror.example/debian",
    ("stable1", "stable1-updates"),
    ("main", "contrib"),
    {"Signed-By": "/usr/share/keyrings/k.gpg"},
)


def test_a_deb822_file_gives_its_enabled_binary_repositories():
    assert read_sources(DEB822, is_deb822=True) == (MAIN,)


def test_a_one_line_entry_is_read_with_its_key():
    line = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian stable1 main contrib # x\ndeb-src x y z\n"
    wanted = Source("http://mirror.example/debian", ("stable1",), ("main", "contrib"), {"Signed-By": "/k.gpg"})
    assert read_sources(line, is_deb822=False) == (wanted,)


def test_what_is_rendered_reads_back():
    parts = read_sources(render_sources([MAIN]), is_deb822=False)
    assert [part.suites for part in parts] == [("stable1",), ("stable1-updates",)]


def test_a_repository_of_another_release_is_left_out():
    other = Source("http://vendor.example/", ("nodistro",), ("main",), {})
    assert of_release([MAIN, other], "stable1", with_backports=False) == (MAIN,)


def test_backports_stand_beside_the_release():
    (found,) = of_release([MAIN], "stable1", with_backports=True)
    assert found.suites == ("stable1", "stable1-updates", "stable1-backports")


def test_security_gets_no_backports():
    security = Source("http://mirror.example/security", ("stable1-security",), ("main",), {})
    assert of_release([security], "stable1", with_backports=True) == (security,)


def test_the_record_is_sorted_by_name(tmp_path):
    write_record([Deb("b", "1", "2", "b.deb"), Deb("a", "3", "4", "a.deb")], tmp_path / "packages.json")
    rows = json.loads((tmp_path / "packages.json").read_text())["packages"]
    assert [row["name"] for row in rows] == ["a", "b"]


def test_a_system_without_apt_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="apt-get is not on PATH"):
        PrivateApt(tmp_path, "arm64")


def host_settings(folder: Path, source: str) -> Path:
    (folder / "apt").mkdir(parents=True)
    (folder / "os-release").write_text('VERSION_CODENAME="stable1"\n')
    (folder / "apt" / "sources.list").write_text(source)
    return folder


def test_a_mirror_that_does_not_answer_is_told_with_the_command(tmp_path):
    need("apt-get", "dpkg-deb")
    etc = host_settings(tmp_path / "etc", f"deb [trusted=yes] file:{tmp_path}/no-mirror stable1 main\n")
    with pytest.raises(MissingToolError, match="no package list for arm64") as caught:
        PrivateApt(tmp_path / "apt", "arm64", etc=etc).fetch(["hello"], with_dependencies=False)
    assert "apt-get update" in caught.value.hint


def test_a_host_without_a_repository_of_its_release_is_told_so(tmp_path):
    need("apt-get", "dpkg-deb")
    etc = host_settings(tmp_path / "etc", "deb http://vendor.example/ nodistro main\n")
    with pytest.raises(MissingToolError, match="no repository of the release 'stable1'"):
        PrivateApt(tmp_path / "apt", "arm64", etc=etc).fetch(["hello"], with_dependencies=False)
