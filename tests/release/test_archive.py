import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.errors import StageError, VerificationError
from mobilekd.release.archive import check_names, name_fault, read_archive, write_archive
from mobilekd.release.files import ArchiveFiles, FolderFiles

CONTENT = {"a.txt": b"alpha", "b/c.bin": bytes(range(256)), "b/empty": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _folder(tmp_path / "folder", CONTENT)


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    write_archive(folder, tmp_path / "a.zip")
    return tmp_path / "a.zip"


def _folder(path: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def _stdlib_zip(content: dict[str, bytes]) -> bytes:
    """Write the form with the standard library, from its recipe."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in content.items():
            archive.writestr(_info(name, {}), data)
    return out.getvalue()


def _info(name: str, changes: dict[str, object]) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    plain = {"create_system": 3, "external_attr": 0o100644 << 16}
    for key, value in (plain | changes).items():
        setattr(info, key, value)
    return info


def test_writer_agrees_with_the_standard_library(archive: Path):
    assert archive.read_bytes() == _stdlib_zip(CONTENT)


def test_reader_returns_what_was_written(archive: Path):
    files = ArchiveFiles(archive)
    assert {name: files.read(name, limit_bytes=1000) for name in files.names} == CONTENT


def test_file_times_and_modes_do_not_change_the_archive(folder: Path, archive: Path, tmp_path: Path):
    (folder / "a.txt").touch()
    (folder / "a.txt").chmod(0o755)
    write_archive(folder, tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == archive.read_bytes()


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_flipped_byte_is_refused(position: int, flip: int, tmp_path_factory: pytest.TempPathFactory):
    content = bytearray(_stdlib_zip(CONTENT))
    content[position % len(content)] ^= flip
    with pytest.raises(VerificationError):
        read_archive(_written(tmp_path_factory, bytes(content)))


@given(length=st.integers(0, 10_000))
def test_a_truncated_archive_is_refused(length: int, tmp_path_factory: pytest.TempPathFactory):
    whole = _stdlib_zip(CONTENT)
    with pytest.raises(VerificationError):
        read_archive(_written(tmp_path_factory, whole[: length % len(whole)]))


def _written(factory: pytest.TempPathFactory, content: bytes) -> Path:
    path = factory.mktemp("zip") / "x.zip"
    path.write_bytes(content)
    return path


def test_flipped_content_names_the_entry(archive: Path):
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"alpha", b"alphA"))
    with pytest.raises(VerificationError, match=r"a\.txt: its content does not match its checksum"):
        read_archive(archive)


HOSTILE = {
    "parent": {"../evil": b""},
    "deep parent": {"a/../../evil": b""},
    "absolute": {"/etc/passwd": b""},
    "double slash": {"a//b": b""},
    "here": {"./a": b""},
    "backslash": {"..\\evil": b""},
    "drive": {"C:evil": b""},
    "stream": {"labels.txt:ads": b""},
    "device": {"con.txt": b""},
    "device in a folder": {"models/LPT1": b""},
    "trailing dot": {"a.": b""},
    "trailing space": {"a ": b""},
    "newline": {"a\nb": b""},
    "escape": {"a\x1b[2Jb": b""},
    "right to left": {"a\u202eb": b""},
    "hidden": {".gitattributes": b""},
    "option": {"-rf": b""},
    "directory": {"a/": b""},
    "case twins": {"A.txt": b"", "a.txt": b""},
    "file as folder": {"a": b"", "a/b": b""},
    "file as folder, other case": {"A": b"", "a/b": b""},
    "long": {"a" * 300: b""},
    "out of order": {"b": b"", "a": b""},
    "none": {},
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_are_refused(content: dict[str, bytes], tmp_path: Path):
    (tmp_path / "x.zip").write_bytes(_stdlib_zip(content))
    with pytest.raises(VerificationError):
        read_archive(tmp_path / "x.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_is_refused(tmp_path: Path):
    out = io.BytesIO(_stdlib_zip({"a": b"1"}))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(_info("a", {}), b"2")
    (tmp_path / "x.zip").write_bytes(out.getvalue())
    with pytest.raises(VerificationError, match="a"):
        read_archive(tmp_path / "x.zip")


WRAPPED = {
    "prefix": (b"#!/bin/sh\n", b""),
    "trailing bytes": (b"", b"\0"),
    "second archive behind": (b"", _stdlib_zip({"evil": b""})),
    "second archive before": (_stdlib_zip({"evil": b""}), b""),
}


@pytest.mark.parametrize(("before", "after"), WRAPPED.values(), ids=WRAPPED.keys())
def test_bytes_around_the_archive_are_refused(before: bytes, after: bytes, tmp_path: Path):
    (tmp_path / "x.zip").write_bytes(before + _stdlib_zip(CONTENT) + after)
    with pytest.raises(VerificationError):
        read_archive(tmp_path / "x.zip")


FORMS = {
    "deflated": {"compress_type": zipfile.ZIP_DEFLATED},
    "dated": {"date_time": (2024, 5, 5, 0, 0, 0)},
    "link": {"external_attr": 0o120777 << 16},
    "set-user-id": {"external_attr": 0o104755 << 16},
    "extra field": {"extra": b"\x75\x70\x01\x00\x01"},
    "comment": {"comment": b"hello"},
    "made on DOS": {"create_system": 0},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_other_forms_of_the_same_files_are_refused(form: dict[str, object], tmp_path: Path):
    info = _info("a.txt", form)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, b"alpha", compress_type=info.compress_type)
    with pytest.raises(VerificationError):
        read_archive(tmp_path / "x.zip")


@given(st.text(max_size=12))
def test_an_accepted_name_is_plain_ascii_below_the_folder(name: str):
    accepted = name_fault(name) == ""
    assert not accepted or (name.isascii() and not name.startswith(("/", ".", "-")) and ".." not in name.split("/"))


def test_too_many_files_are_refused():
    with pytest.raises(VerificationError, match="5000 files"):
        check_names([f"f{index}" for index in range(5000)], Path("x"))


def test_a_link_in_a_folder_is_refused(folder: Path):
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(VerificationError, match="link: a link or special file"):
        FolderFiles(folder)


def test_a_linked_folder_is_refused(folder: Path, tmp_path: Path):
    (folder / "sub").symlink_to(tmp_path)
    with pytest.raises(VerificationError, match="sub: a link"):
        FolderFiles(folder)


def test_a_file_past_the_limit_is_not_read(archive: Path):
    with pytest.raises(VerificationError, match="more than 10 bytes"):
        ArchiveFiles(archive).read("b/c.bin", limit_bytes=10)


def test_an_archive_that_its_directory_makes_too_big_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").write_bytes(b"x" * 1000)
    monkeypatch.setattr("mobilekd.release.archive.MAX_BUNDLE_BYTES", 1050)
    with pytest.raises(StageError, match="the bundle has 1100 bytes, allowed are 1050"):
        write_archive(tmp_path / "folder", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
