"""Generated C++ is compiled and run: its pixels on this host, MNN's on this host and on emulated arm64 CPUs."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mobilekd.device import cpus, runtimes
from mobilekd.errors import MissingToolError
from mobilekd.preprocessing import normalize
from mobilekd.release.app.golden import model_input
from mobilekd.release.app.snippets import snippets
from mobilekd.release.manifest import Manifest, ModelEntry
from mobilekd.training.sources import square
from tests.device.models import Silent
from tests.device.tools import need

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "mobilekd/device/native"
FLAGS = ("-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{HERE / 'mnn_headers'}")

INT8 = {"dtype": "int8", "scale": 0.0187, "zero_point": -11}


def mnn_model(manifest: Manifest, deployment: str, edge: dict[str, object]) -> ModelEntry:
    """Return the MNN model under another name, so that its code has a namespace of its own."""
    model = next(one for one in manifest.models if one.deployment == "mnn-int8")
    ends = {"input": replace(model.input, **edge), "output": replace(model.output, **edge)}  # type: ignore[arg-type]
    return model.model_copy(update={"deployment": deployment, **ends})


@pytest.fixture(scope="module")
def fit(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One program of three generated codes: as the bundle's, with int8 input, and without a resize."""
    need("g++")
    folder = tmp_path_factory.mktemp("fit")
    as_it_is = manifest.model_copy(
        update={"preprocessing": manifest.preprocessing.model_copy(update={"resize": "none"})}
    )
    codes = {
        **snippets(manifest, mnn_model(manifest, "plain", {})),
        **snippets(manifest, mnn_model(manifest, "int8_io", INT8)),
        **snippets(as_it_is, mnn_model(manifest, "as_it_is", {})),
    }
    lines = []
    for name, text in codes.items():
        file = folder / Path(name).name
        file.write_text(text)
        lines.append(f'#include "{file}"\n')
    names = " ".join(f"CODE({Path(name).stem})" for name in codes)
    (folder / "codes.hpp").write_text(f"{''.join(lines)}#define CODES {names}\n")
    subprocess.run(["g++", *FLAGS, f"-I{folder}", "-o", folder / "fit", HERE / "fit_main.cpp"], check=True)
    return folder / "fit"


def fitted(program: Path, name: str, image: NDArray[np.uint8]) -> bytes:
    height, width, _ = image.shape
    argv = [program, name, str(width), str(height)]
    return subprocess.run(argv, input=image.tobytes(), capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "size", [(8, 8), (3, 5), (9, 8), (640, 427), (427, 640), (1, 40), (100, 7), (1300, 13), (129, 64)]
)
def test_pixels_and_input_of_an_app_are_those_of_training_to_the_bit(
    fit: Path, manifest: Manifest, size: tuple[int, int]
) -> None:
    image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = square(Image.fromarray(image), 8)
    rule = manifest.preprocessing
    expected = normalize(pixels[None], rule.mean, rule.std)
    assert fitted(fit, "plain", image) == pixels.tobytes() + expected.tobytes()


def test_int8_input_of_an_app_is_that_of_the_golden_pair(fit: Path, manifest: Manifest) -> None:
    image = np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    values = normalize(image[None], manifest.preprocessing.mean, manifest.preprocessing.std)
    expected = model_input(values, mnn_model(manifest, "int8_io", INT8).input)
    assert fitted(fit, "int8_io", image)[image.size :] == expected.tobytes()


def test_an_image_of_another_size_is_refused_where_nothing_is_resized(fit: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        fitted(fit, "as_it_is", np.zeros((8, 9, 3), np.uint8))
    assert b"the image is not 8 x 8" in caught.value.stderr


def test_onnxruntime_code_is_valid_cpp(app: Path) -> None:
    need("g++")
    headers = f"-I{HERE / 'onnxruntime_headers'}"
    argv = ["g++", *FLAGS, headers, "-DGOLDEN", "-fsyntax-only", app / "cpp/onnxruntime_int8.cpp"]
    assert subprocess.run(argv, capture_output=True, text=True, check=False).stderr == ""


def built_mnn(prefix: str, runtime: runtimes.Runtime, app: Path, folder: Path) -> Path:
    """Compile the generated MNN code with its main(), against the wheel's library; Python's symbols are stubs."""
    need(f"{prefix}gcc", f"{prefix}g++")
    stubs = [NATIVE / "python_stubs.c", HERE / "no_python.c"]
    objects = [folder / f"{stub.stem}.o" for stub in stubs]
    for stub, made in zip(stubs, objects, strict=True):
        subprocess.run([f"{prefix}gcc", "-O2", "-c", f"-I{NATIVE}", "-o", made, stub], check=True)
    program = folder / "classify"
    ends = ["-rdynamic", runtime.library, "-Wl,--allow-shlib-undefined"]
    argv = [f"{prefix}g++", *FLAGS, "-DGOLDEN", "-o", program, app / "cpp/mnn_int8.cpp", *objects, *ends]
    subprocess.run(argv, check=True)
    return program


def steps_off(app: Path, argv: list[object]) -> float:
    """Return by how many output steps the logits of a program differ from the golden ones; the answer is the same."""
    golden = json.loads((app / "golden/golden.json").read_text())
    pair = next(one for one in golden["pairs"] if one["deployment"] == "mnn-int8")
    words = [
        app / "models/mnn-int8.mnn",
        app / "labels.txt",
        app / "golden/image.bin",
        *golden["image"]["shape"][1::-1],
    ]
    done = subprocess.run(
        [str(word) for word in (*argv, *words)], capture_output=True, text=True, timeout=120, check=True
    )
    got = np.array([float(line) for line in done.stdout.splitlines() if ":" not in line], np.float32)
    expected = np.frombuffer((app / "golden" / pair["logits"]["file"]).read_bytes(), "<f4")
    assert done.stderr.splitlines()[-1].startswith(pair["top1"])
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max()) / pair["logit_step"]


def test_mnn_code_answers_the_golden_image_on_this_host(app: Path, tmp_path: Path) -> None:
    machine = os.uname().machine
    runtime = _mnn(machine, tmp_path)
    program = built_mnn("", runtime, app, tmp_path)
    beside = ":".join(str(one.parent) for one in (runtime.library, *runtime.needs))
    assert steps_off(app, ["env", f"LD_LIBRARY_PATH={beside}", program]) <= 1


@pytest.fixture(scope="module")
def arm(app: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, runtimes.Runtime]:
    """The program for aarch64, the state folder, and MNN of the aarch64 wheel."""
    need("qemu-aarch64")
    state = tmp_path_factory.mktemp("arm")
    runtime = _mnn("aarch64", state)
    return built_mnn("aarch64-linux-gnu-", runtime, app, state), state, runtime


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_mnn_code_answers_the_golden_image_on_an_emulated_arm_cpu(
    app: Path, arm: tuple[Path, Path, runtimes.Runtime], cpu: str
) -> None:
    program, state, runtime = arm
    known = cpus.cpu(cpu)
    beside = ":".join(str(one.parent) for one in (runtime.library, *runtime.needs))
    qemu = ["qemu-aarch64", "-cpu", known.qemu, "-L", cpus.prefix(known, state), "-E", f"LD_LIBRARY_PATH={beside}"]
    assert steps_off(app, [*qemu, program]) <= 1


def _mnn(machine: str, state: Path) -> runtimes.Runtime:
    try:
        return runtimes.runtime("mnn", machine, state, Silent())
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")
