"""The cpio archive: read back by a reader of its own, and by the kernel in tests/transports."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.device.initramfs import archive, character_device, directory, file, link

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9).filter(
    lambda name: name not in {".", ".."}
)


def read(packed: bytes) -> dict[str, tuple[int, bytes]]:
    """Name -> (mode, content) of every record up to the trailer, from the format's description."""
    found, at = {}, 0
    while True:
        assert packed[at : at + 6] == b"070701"
        field = [int(packed[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        name = packed[at + 110 : at + 110 + field[11] - 1].decode()
        start = -(-(at + 110 + field[11]) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (field[1], packed[start : start + field[6]])
        at = -(-(start + field[6]) // 4) * 4


@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=6))
def test_every_file_reads_back(contents):
    packed = archive(file(name, content) for name, content in contents.items())
    assert {name: content for name, (_, content) in read(packed).items()} == contents


def test_the_first_record_is_this_one():
    # inode, mode, owner, group, links, time, size, two numbers of the disk, two of a device, length of the name, sum
    fields = (1, 0o100644, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2, 0)
    wanted = "070701" + "".join(f"{field:08X}" for field in fields)
    assert archive([file("a", b"hi")]).startswith(wanted.encode() + b"a\0" + b"hi\0\0" + b"070701")


def test_folders_above_a_file_are_made_before_it():
    assert list(read(archive([file("a/b/c", b"")]))) == ["a", "a/b", "a/b/c"]


def test_a_folder_keeps_the_permissions_it_was_given():
    mode, _ = read(archive([file("root/x", b""), directory("root", 0o700)]))["root"]
    assert mode == stat.S_IFDIR | 0o700


def test_a_link_holds_its_target():
    assert read(archive([link("sh", "busybox")]))["sh"] == (stat.S_IFLNK | 0o777, b"busybox")


def test_a_device_node_holds_its_numbers():
    packed = archive([character_device("console", 5, 1)])
    assert packed[6 + 8 * 9 : 6 + 8 * 11] == b"0000000500000001"


def test_the_order_of_the_entries_does_not_matter():
    entries = [file("b", b"2"), file("a/c", b"1"), link("d", "b")]
    assert archive(entries) == archive(reversed(entries))


def test_the_length_is_whole_blocks():
    assert len(archive([file("a", b"x" * 700)])) % 512 == 0


def test_two_entries_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        archive([file("a", b"1"), file("a", b"2")])
