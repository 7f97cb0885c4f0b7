import pytest

from mobilekd.device import cpus
from mobilekd.errors import ConfigError, MissingToolError


def needs_libraries():
    if not (cpus.CROSS_LIBRARIES / "libstdc++.so.6").exists():
        pytest.skip(f"no C++ library for arm64 in {cpus.CROSS_LIBRARIES}")


def test_cpuinfo_has_a_block_for_every_core():
    text = cpus.cpu("a76").cpuinfo(cores=2)

    assert [line for line in text.splitlines() if line.startswith(("processor", "CPU part"))] == [
        "processor\t: 0",
        "CPU part\t: 0xd0b",
        "processor\t: 1",
        "CPU part\t: 0xd0b",
    ]


@pytest.mark.parametrize(
    ("name", "dot_product", "i8mm"),
    [
        ("a53", False, False),
        ("a72", False, False),
        ("a76", True, False),
        ("neoverse-n1", True, False),
        ("armv8.6", True, True),
    ],
)
def test_features_are_those_that_int8_kernels_are_chosen_by(name, dot_product, i8mm):
    features = cpus.cpu(name).features

    assert ("asimddp" in features, "i8mm" in features) == (dot_product, i8mm)


def test_prefix_is_written_once_and_mended_when_it_is_damaged(tmp_path):
    needs_libraries()
    folder = cpus.prefix(cpus.cpu("a53"), tmp_path)
    wanted = (folder / "proc/cpuinfo").read_text(encoding="ascii")
    (folder / "proc/cpuinfo").write_text("", encoding="ascii")

    assert cpus.prefix(cpus.cpu("a53"), tmp_path) == folder
    assert (folder / "proc/cpuinfo").read_text(encoding="ascii") == wanted


def test_unknown_cpu_lists_those_there_are():
    with pytest.raises(ConfigError) as caught:
        cpus.cpu("m1")

    assert "armv8.6" in caught.value.hint


def test_missing_c_library_names_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(cpus, "CROSS_LIBRARIES", tmp_path)

    with pytest.raises(MissingToolError) as caught:
        cpus.prefix(cpus.cpu("a53"), tmp_path)

    assert "libc6-dev-arm64-cross" in caught.value.hint
