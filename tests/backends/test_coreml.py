"""Core ML packages of a small network: what stands in them, and what is refused. None is run: that takes macOS."""

import json
import zipfile
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import pytest

from mobilekd import graph
from mobilekd.backends import _coreml_package, _torch_program
from mobilekd.backends._coreml_check import Found, check
from mobilekd.backends.coreml import Coreml
from mobilekd.errors import ConfigError, MissingToolError, StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import QuantTable
from tests.backends import tiny
from tests.backends.tiny import Built
from tests.backends.torch_converted import converted

INT8 = Deployment(backend="coreml")
ROOT = "coreml-int8.mlpackage"


@dataclass(frozen=True)
class BuiltPackage(Built):
    """A converted network, its package unpacked, and what its operators stand for."""

    package: Path
    origins: dict[str, str]

    def checked(self, table: QuantTable) -> Found:
        with _torch_program.quiet():
            return check(self.package, self.origins, self.work.request.qdq_onnx, table)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltPackage:
    """The network of `tiny`, converted as a build does it: in a process of its own."""
    with (
        _torch_program.quiet()
    ):  # what coremltools imports warns; whichever test comes first must not be the one to fail
        import coremltools  # noqa: F401
    folder = tmp_path_factory.mktemp("coreml")
    work = tiny.write_tiny(folder / "tiny")
    facts = Coreml().convert(work.for_(INT8))
    program = _torch_program.exported(graph.load(work.request.qdq_onnx), ["logits"])
    with _torch_program.quiet():
        program = program.run_decompositions({})
    origins = {node.name: name for node, name in _torch_program.origins(list(program.graph.nodes))}
    return BuiltPackage(work, facts, _coreml_package.unpack(work.request.out / facts.file, folder), origins)


def test_a_package_is_built_and_says_that_it_was_not_run(built: BuiltPackage) -> None:
    assert (built.facts.file, built.facts.runnable) == (f"{ROOT}.zip", False)
    assert built.facts.note == "built, not run: Core ML runs on macOS only; structure checked"


def test_every_layer_is_int8_and_nothing_else_is_float(built: BuiltPackage) -> None:
    assert (built.facts.float_ops, built.facts.other_float_ops) == ((), ())


def test_the_archive_unpacks_to_the_folder_that_xcode_opens(built: BuiltPackage) -> None:
    with zipfile.ZipFile(built.file) as archive:
        assert archive.namelist() == [
            f"{ROOT}/Data/com.apple.CoreML/model.mlmodel",
            f"{ROOT}/Data/com.apple.CoreML/weights/weight.bin",
            f"{ROOT}/Manifest.json",
        ]


def test_the_manifest_names_the_parts_that_are_there(built: BuiltPackage) -> None:
    manifest = json.loads((built.package / "Manifest.json").read_text())
    paths = {key: one["path"] for key, one in manifest["itemInfoEntries"].items()}
    assert paths[manifest["rootModelIdentifier"]] == "com.apple.CoreML/model.mlmodel"
    assert all((built.package / "Data" / path).exists() for path in paths.values())


def test_the_archive_has_no_date_and_no_random_identifier(built: BuiltPackage) -> None:
    with zipfile.ZipFile(built.file) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert b"conversion_date" not in built.file.read_bytes()


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(built: BuiltPackage, tmp_path: Path) -> None:
    work = tiny.write_tiny(tmp_path / "again")
    file = work.request.out / built.file.name
    converted("coreml", work.for_(INT8), file)
    assert file.read_bytes() == built.file.read_bytes()


def test_input_and_output_have_the_names_of_the_student(built: BuiltPackage) -> None:
    import coremltools as ct

    described = ct.utils.load_spec(str(built.package)).description
    assert ([one.name for one in described.input], [one.name for one in described.output]) == (["image"], ["logits"])


@pytest.mark.parametrize("name", ["stem_act", "added", "project.weight", "classifier.weight", "logits"])
def test_a_scale_that_is_not_the_tables_is_refused(name: str, built: BuiltPackage) -> None:
    changed = QuantTable(tuple(tiny.rescaled(one, 1.5) if one.name == name else one for one in built.table.tensors))
    with pytest.raises(StageError, match=rf"the scale of '{name}' differs"):
        built.checked(changed)


def test_a_weight_that_the_package_does_not_have_is_refused(built: BuiltPackage) -> None:
    more = QuantTable((*built.table.tensors, tiny.renamed(built.table.by_name()["wide.weight"], "gone")))
    with pytest.raises(StageError, match="'gone' is in the quantization table and not in the file"):
        built.checked(more)


def test_one_bit_changed_in_the_weights_of_the_package_is_found(built: BuiltPackage) -> None:
    path = built.package / "Data/com.apple.CoreML/weights/weight.bin"
    kept = path.read_bytes()
    weights = graph.index_qdq(graph.load(built.work.request.qdq_onnx)).constants["stem.weight"].tobytes()
    changed = bytearray(kept)
    changed[kept.index(weights) + 3] ^= 1
    try:
        path.write_bytes(changed)
        with pytest.raises(StageError, match=r"the int8 weights of 'stem\.weight' differs"):
            built.checked(built.table)
    finally:
        path.write_bytes(kept)


def test_a_package_is_refused_on_this_machine_with_its_note(built: BuiltPackage) -> None:
    with pytest.raises(StageError, match="built, not run"):
        Coreml().open(built.file, built.facts, kernels="default", threads=1)


def test_a_lone_package_can_not_be_measured_here(built: BuiltPackage) -> None:
    with pytest.raises(StageError, match="macOS only"):
        Coreml().describe(built.file)


def test_int8_io_is_refused_with_the_option_that_helps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Coreml().convert(tiny.write_tiny(tmp_path / "net").for_(Deployment(backend="coreml", io="int8")))
    assert caught.value.hint == 'set io = "float32" for coreml'


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tiny.write_tiny(tmp_path / "net")
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "coremltools" else name)
    with pytest.raises(MissingToolError, match=r"coremltools is not installed: pip install 'mobilekd\[coreml\]'"):
        Coreml().convert(work.for_(INT8))
