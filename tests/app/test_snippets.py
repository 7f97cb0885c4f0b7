"""Code for Kotlin and Swift: there is no compiler of theirs here, so what can be said of the text is said."""

import re
from pathlib import Path

import numpy as np
import pytest

from mobilekd.errors import ConfigError
from mobilekd.release.app.snippets import coded_models, snippets
from mobilekd.release.manifest import Manifest, ModelEntry

NASTY = 'in "$put" \\(x)\n漢'


def of(manifest: Manifest, deployment: str) -> ModelEntry:
    return next(model for model in manifest.models if model.deployment == deployment)


def code(manifest: Manifest, deployment: str, ends: str, **edge: object) -> str:
    """Return the code of a model in a language, its input and output changed."""
    from dataclasses import replace

    model = of(manifest, deployment)
    changed = {"input": replace(model.input, **edge), "output": replace(model.output, **edge)}  # type: ignore[arg-type]
    found = snippets(manifest, model.model_copy(update=changed) if edge else model)
    return next(text for name, text in found.items() if name.endswith(ends))


def without_strings_and_comments(text: str) -> str:
    return re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/|\'(?:\\.|[^\'\\\n])\'', "", text, flags=re.DOTALL)


@pytest.mark.parametrize("io", ["float32", "int8"])
@pytest.mark.parametrize(
    ("deployment", "ends"),
    [
        ("tflite-int8", "kt"),
        ("tflite-int8", "swift"),
        ("onnxruntime-int8", "swift"),
        ("onnxruntime-int8", "cpp"),
        ("mnn-int8", "cpp"),
    ],
)
def test_brackets_balance_and_no_placeholder_is_left(manifest: Manifest, deployment: str, ends: str, io: str) -> None:
    text = code(manifest, deployment, ends, dtype=io, scale=0.05, zero_point=-3)
    bare = without_strings_and_comments(text)
    assert [bare.count(one) for one in "({["] == [bare.count(one) for one in ")}]"]
    assert '"' not in bare
    assert re.findall(r"\$[a-z{]", text) == []


@pytest.mark.parametrize(
    ("deployment", "ends", "line"),
    [
        ("tflite-int8", "kt", "val MEAN = floatArrayOf(0.485f, 0.456f, 0.406f)"),
        ("tflite-int8", "swift", "static let std: [Float] = [0.229, 0.224, 0.225]"),
        ("mnn-int8", "cpp", "constexpr float kMean[3] = {0.485f, 0.456f, 0.406f}, kStd[3] = {0.229f, 0.224f, 0.225f};"),
    ],
)
def test_code_has_the_numbers_of_the_manifest(manifest: Manifest, deployment: str, ends: str, line: str) -> None:
    assert line in code(manifest, deployment, ends)


@pytest.mark.parametrize(
    ("deployment", "ends", "place"),
    [("tflite-int8", "kt", "values[at * 3 + c]"), ("onnxruntime-int8", "swift", "values[c * area + at]")],
)
def test_values_lie_as_the_model_file_wants_them(manifest: Manifest, deployment: str, ends: str, place: str) -> None:
    assert place in code(manifest, deployment, ends)


def test_int8_code_has_scale_and_zero_point_to_the_bit(manifest: Manifest) -> None:
    scale = float(np.float32(0.0123456789))
    text = code(manifest, "tflite-int8", "kt", dtype="int8", scale=scale, zero_point=-7)
    written = re.findall(r"values\[it\] / ([0-9.e-]+)f\)", text)
    assert [np.float32(one) for one in written] == [np.float32(scale)]
    assert "+ -7).coerceIn(-128.0, 127.0)" in text


@pytest.mark.parametrize(
    ("ends", "literal"),
    [
        ("swift", r'"in \"$put\" \\(x)\u{a}\u{6f22}"'),
        ("cpp", r'"in \"$put\" \\(x)\012\346\274\242"'),
    ],
)
def test_a_tensor_s_name_is_escaped_for_the_language(manifest: Manifest, ends: str, literal: str) -> None:
    assert literal in code(manifest, "onnxruntime-int8", ends, name=NASTY)


def test_words_of_the_bundle_stay_inside_their_comment(manifest: Manifest) -> None:
    dataset = manifest.dataset.model_copy(update={"name": 'x\n}; evil() // """ */ \\'})
    changed = manifest.model_copy(update={"dataset": dataset})
    text = code(changed, "mnn-int8", "cpp")
    assert text.splitlines()[0].startswith("// x }; evil() // ''' * / /")
    assert "evil" not in without_strings_and_comments(text)


def test_an_input_of_another_shape_is_refused(manifest: Manifest) -> None:
    from dataclasses import replace

    model = of(manifest, "mnn-int8")
    odd = model.model_copy(update={"input": replace(model.input, shape=(1, 3, 9, 9))})
    with pytest.raises(ConfigError, match=r"mnn-int8: no app code for input NCHW \[1, 3, 9, 9\]"):
        coded_models(manifest.model_copy(update={"models": (odd,)}))


def test_templates_are_in_the_package(tmp_path: Path) -> None:
    from importlib import resources

    folder = resources.files("mobilekd.release.app")
    assert {"tflite.kt.tmpl", "mnn.cpp.tmpl", "preprocess.py.tmpl"} <= {one.name for one in folder.iterdir()}
