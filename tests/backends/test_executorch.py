"""ExecuTorch files of small networks: what they compute, what they say, and what is refused."""

import subprocess
import sys
from dataclasses import replace
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from mobilekd import graph
from mobilekd.backend import DeployedFacts, TensorFacts
from mobilekd.backends import _executorch_check, _torch_program
from mobilekd.backends._executorch_convert import TRACE
from mobilekd.backends._executorch_file import read_pte
from mobilekd.backends._executorch_lower import Lowered, lower
from mobilekd.backends.executorch import Executorch
from mobilekd.errors import ConfigError, MissingToolError, StageError
from mobilekd.profile import Deployment
from mobilekd.quant_table import QuantTable
from tests.backends import operators, tiny
from tests.backends.test_operators import own_errors
from tests.backends.tiny import Built
from tests.backends.torch_converted import converted

INT8 = Deployment(backend="executorch")
OPENS = """
import pathlib, sys
from mobilekd.backends.executorch import Executorch
Executorch().describe(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The network of `tiny`, converted as a build does it: in a process of its own."""
    work = tiny.write_tiny(tmp_path_factory.mktemp("executorch") / "tiny")
    return Built(work, Executorch().convert(work.for_(INT8)))


@pytest.fixture(scope="module")
def lowered(built: Built) -> Lowered:
    """The same network, lowered here: where the names of its operators are known."""
    with _torch_program.quiet():
        return lower(graph.load(built.work.request.qdq_onnx), ["logits"])


def checked(built: Built, lowered: Lowered, file: Path, table: QuantTable) -> _executorch_check.Found:
    return _executorch_check.check(file, read_pte(file), lowered, built.work.request.qdq_onnx, table)


def test_logits_are_those_of_the_trained_network(built: Built) -> None:
    session = Executorch().open(built.file, built.facts, kernels="xnnpack", threads=1)
    images = tiny.images(8)
    found = tiny.session_logits(session, images)
    wanted = tiny.reference_logits(built.work.request.qdq_onnx, images)
    step = built.table.by_name()["logits"].scale[0]
    assert np.abs(found - wanted).max() / step <= 0.001


def test_every_tensor_is_what_the_trained_operator_makes_of_its_inputs(built: Built) -> None:
    errors = own_errors(built.work, Executorch(), built.facts, tiny.images(3, seed=2))
    assert {name: found.max() for name, found in errors.items() if found.max() > 0.501} == {}


def test_every_activation_of_the_table_is_traced(built: Built) -> None:
    names = [one.name for one in built.table.with_role("activation")]
    traced = Executorch().trace(built.file, built.facts, tiny.images(1), names, kernels="xnnpack")
    assert list(traced) == names


def test_all_of_the_network_runs_in_int8_inside_xnnpack(built: Built) -> None:
    assert (built.facts.float_ops, built.facts.other_float_ops) == ((), ())
    assert built.facts.note == "12 operators in XNNPACK, 0 outside"


def test_a_second_process_writes_the_same_bytes(built: Built, lowered: Lowered) -> None:
    assert built.file.read_bytes() == lowered.content


def test_an_output_is_kept_when_the_model_runs_again(built: Built) -> None:
    session = Executorch().open(built.file, built.facts, kernels="xnnpack", threads=1)
    session.load_input(tiny.images(1, seed=3))
    session.invoke()
    first = session.read_output()
    kept = first.copy()
    tiny.session_logits(session, tiny.images(1, seed=4))
    np.testing.assert_array_equal(first, kept)


def test_a_lone_file_says_what_it_is_fed_and_that_it_is_int8(built: Built) -> None:
    found = Executorch().describe(built.file)
    assert (found.input.shape, found.input.layout, found.output.shape) == ((1, 3, 8, 8), "NCHW", (1, 10))
    assert found.deployment["precision"] == "int8"


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "noise.pte").write_bytes(b"not a program at all, not at all")
    with pytest.raises(StageError, match=r"noise\.pte is no ExecuTorch program"):
        Executorch().describe(tmp_path / "noise.pte")


@pytest.mark.slow
def test_nothing_of_the_runtime_reaches_the_terminal(built: Built) -> None:
    done = subprocess.run([sys.executable, "-c", OPENS, str(built.file)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("name", ["stem_act", "pooled", "project.weight", "classifier.bias", "logits"])
def test_a_scale_that_is_not_the_tables_is_refused(name: str, built: Built, lowered: Lowered) -> None:
    changed = QuantTable(tuple(tiny.rescaled(one, 1.5) if one.name == name else one for one in built.table.tensors))
    with pytest.raises(StageError, match=rf"the scale of '{name}' differs"):
        checked(built, lowered, built.file, changed)


@pytest.mark.parametrize("name", ["stem.weight", "spread.weight", "classifier.weight"])
def test_one_bit_changed_in_the_weights_of_the_file_is_found(
    name: str, built: Built, lowered: Lowered, tmp_path: Path
) -> None:
    stored = graph.index_qdq(graph.load(built.work.request.qdq_onnx)).constants[name]
    order = {"stem.weight": (0, 2, 3, 1), "spread.weight": (1, 2, 3, 0), "classifier.weight": (0, 1)}[name]
    weights, content = stored.transpose(order).tobytes(), bytearray(built.file.read_bytes())
    content[content.index(weights) + 3] ^= 1
    (tmp_path / "changed.pte").write_bytes(content)
    with pytest.raises(StageError, match=rf"the int8 weights of '{name}' differs"):
        checked(built, lowered, tmp_path / "changed.pte", built.table)


def test_a_weight_that_the_file_does_not_have_is_refused(built: Built, lowered: Lowered) -> None:
    more = QuantTable((*built.table.tensors, tiny.renamed(built.table.by_name()["wide.weight"], "gone")))
    with pytest.raises(StageError, match="'gone' is in the quantization table and not in the file"):
        checked(built, lowered, built.file, more)


def test_a_trace_without_its_file_says_where_one_is_made(built: Built, tmp_path: Path) -> None:
    (tmp_path / built.facts.file).write_bytes(built.file.read_bytes())
    with pytest.raises(StageError, match=r"no trace\.json beside it"):
        Executorch().trace(tmp_path / built.facts.file, built.facts, tiny.images(1), ["logits"], kernels="xnnpack")


def test_a_trace_of_another_model_is_refused(built: Built, tmp_path: Path) -> None:
    for path in built.file.parent.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = bytearray((tmp_path / TRACE).read_bytes())
    bias = graph.index_qdq(graph.load(built.work.request.qdq_onnx)).constants["classifier.bias"]
    steps = np.rint(bias / np.asarray(built.table.by_name()["classifier.bias"].scale, np.float32)).astype("<i4")
    moved[moved.index(steps.tobytes()) + 1] ^= 32
    (tmp_path / TRACE).write_bytes(moved)
    with pytest.raises(StageError, match="it gives other logits"):
        Executorch().trace(tmp_path / built.facts.file, built.facts, tiny.images(1), ["logits"], kernels="xnnpack")


@pytest.mark.slow
def test_a_layer_that_xnnpack_has_not_in_int8_is_float_and_named(tmp_path: Path) -> None:
    work = tiny.write_tiny(tmp_path / "net", operators.network("conv_transposed"))
    file = work.request.out / "model.pte"
    answer = converted("executorch", work.for_(INT8), file)
    assert answer["float_ops"] == ("tested",)


@pytest.mark.slow
def test_gates_compute_in_float_between_int8_tensors_and_round_as_trained(tmp_path: Path) -> None:
    work = tiny.write_tiny(tmp_path / "net", operators.network("squeeze_excite_hard_sigmoid"))
    file = work.request.out / "executorch-int8.pte"
    answer = converted("executorch", work.for_(INT8), file)
    assert answer["other_float_ops"] == ("HardSwish active", "HardSigmoid gate")
    facts = replace(_facts(), file=file.name)
    errors = own_errors(work, Executorch(), facts, tiny.images(3, seed=2))
    assert {name: found.max() for name, found in errors.items() if found.max() > 0.501} == {}


@pytest.mark.slow
def test_the_float_student_is_converted_and_computes_what_it_did(tmp_path: Path) -> None:
    work = tiny.write_tiny(tmp_path / "net")
    file = work.request.out / "executorch-fp32.pte"
    answer = converted("executorch", work.for_(Deployment(backend="executorch", precision="fp32")), file)
    session = Executorch().open(file, _facts(), kernels="xnnpack", threads=1)
    found = tiny.session_logits(session, tiny.images(1))
    wanted = tiny.reference_logits(work.request.float_onnx, tiny.images(1))
    assert answer == {}
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize(
    ("asked", "hint"),
    [({"io": "int8"}, 'set io = "float32" for executorch'), ({"precision": "fp16"}, "built in fp32 and int8")],
)
def test_what_the_backend_has_not_is_refused_before_anything_runs(
    asked: dict[str, str], hint: str, tmp_path: Path
) -> None:
    work = tiny.write_tiny(tmp_path / "net")
    with pytest.raises(ConfigError) as caught:
        Executorch().convert(work.for_(Deployment.model_validate({"backend": "executorch", **asked})))
    assert hint in caught.value.hint


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tiny.write_tiny(tmp_path / "net")
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "executorch" else name)
    with pytest.raises(MissingToolError, match=r"executorch is not installed: pip install 'mobilekd\[executorch\]'"):
        Executorch().convert(work.for_(INT8))


def _facts() -> DeployedFacts:
    edge = TensorFacts("image", (1, 3, 8, 8), "float32", "NCHW")
    return DeployedFacts(
        deployment=INT8.model_dump(mode="json"),
        file="",
        runnable=True,
        input=edge,
        output=edge,
        float_ops=(),
        other_float_ops=(),
        int8_tensors=0,
        tools={},
    )
