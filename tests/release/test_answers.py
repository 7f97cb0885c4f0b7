import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobilekd.errors import ConfigError, VerificationError
from mobilekd.release.answers import Answers, per_class_top1, read_answers, write_answers
from mobilekd.release.bundle import read_manifests, verify
from mobilekd.release.files import open_bundle
from mobilekd.release.manifest import file_entries, parse_manifest

from .workshop import MatrixRuntime, Workshop


def _answers(bundle: Path) -> Answers:
    files = open_bundle(bundle)
    manifest, _, _ = read_manifests(files)
    return read_answers(files, manifest)


def _manifest_text(bundle: Path) -> bytes:
    return (bundle / "bundle/manifest.json").read_bytes()


def test_a_class_without_images_has_no_top1():
    labels, answers = np.array([0, 0, 2], np.uint16), np.array([0, 2, 2], np.uint16)
    assert per_class_top1(labels, answers, 4).tolist() == pytest.approx([0.5, np.nan, 1.0, np.nan], nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_top1_is_the_mean_of_its_classes_by_their_images(pairs: list[tuple[int, int]]):
    labels, answers = np.array(pairs, np.uint16).T
    by_class = per_class_top1(labels, answers, 5)
    assert np.nansum(by_class * np.bincount(labels, minlength=5)) == pytest.approx((labels == answers).sum())


def test_a_bundle_carries_the_answers_of_every_model_that_ran(built: Path):
    answers = _answers(built / "bundle.zip")
    assert sorted(answers.deployed) == ["mnn-int8", "onnxruntime-int8", "tflite-int8"]
    assert sorted(answers.networks) == ["quantized", "student", "teacher"]


def test_answers_of_a_bundle_give_the_top1_of_its_parity_table(built: Path):
    answers = _answers(built / "bundle")
    top1 = float((answers.deployed["mnn-int8"] == answers.labels).mean())
    assert top1 == pytest.approx(0.9806, abs=1e-4)


def test_answers_are_files_of_two_bytes_an_image_under_the_digest(built: Path):
    entries = {entry["path"]: entry for entry in json.loads(_manifest_text(built))["files"]}
    assert entries["answers/tflite-int8.npy"]["bytes"] == 128 + 2 * 360


def test_equal_answers_of_another_integer_type_are_equal_bytes(tmp_path: Path):
    write_answers(tmp_path, "a", np.array([3, 1], np.int64))
    write_answers(tmp_path, "b", np.array([3, 1], ">u2"))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_a_bundle_of_a_version_that_kept_no_answers_still_verifies(tmp_path: Path):
    bundle = Workshop(tmp_path, answers=False).bundle()
    assert b'"answers"' not in _manifest_text(bundle)
    assert verify(bundle / "bundle.zip", MatrixRuntime()).files


def test_a_bundle_without_answers_says_so_and_who_built_it(tmp_path: Path):
    bundle = Workshop(tmp_path, answers=False).bundle()
    with pytest.raises(ConfigError, match=r"carries no answers: mobilekd .* built it"):
        _answers(bundle / "bundle")


def test_an_empty_table_of_answers_is_not_the_canonical_form(tmp_path: Path):
    bundle = Workshop(tmp_path, answers=False).bundle()
    document = json.loads(_manifest_text(bundle)) | {"answers": {}}
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with pytest.raises(VerificationError, match="canonical"):
        parse_manifest(text.encode(), "manifest.json")


def _saved(array: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _read_back(tmp_path: Path, content: bytes) -> None:
    """Read the answers of a bundle whose file of labels is this, under a digest that holds."""
    bundle = Workshop(tmp_path).bundle() / "bundle"
    (bundle / "answers/labels.npy").write_bytes(content)
    files = open_bundle(bundle)
    manifest, _, _ = read_manifests(files)
    listed = file_entries(bundle, [entry.path for entry in manifest.files])
    read_answers(files, manifest.model_copy(update={"files": listed}))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros(360, np.float32), "holds '<f4', expected uint16"),
        (np.zeros((36, 10), np.uint16), r"holds uint16 \[36, 10\]"),
        (np.full(360, 10, np.uint16), "answers class 10, there are 10"),
        (np.zeros(359, np.uint16), "360 answers for 359 images"),
        (np.zeros(0, np.uint16), r"holds uint16 \[0\]"),
    ],
)
def test_a_file_that_is_not_one_class_an_image_is_refused(tmp_path: Path, array: NDArray[np.generic], told: str):
    with pytest.raises(VerificationError, match=told):
        _read_back(tmp_path, _saved(array))


@pytest.mark.parametrize("header", ["(((", "[" * 3000, '"""', "{[]: 1}", "{1: 2, 'descr': 3}", "  x\n y"])
def test_a_header_that_numpy_does_not_write_is_refused(tmp_path: Path, header: str):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with pytest.raises(VerificationError, match=r"answers/labels\.npy: not an array"):
        _read_back(tmp_path, content)


def test_a_changed_answer_is_refused(tmp_path: Path):
    bundle = Workshop(tmp_path).bundle() / "bundle"
    file = bundle / "answers/labels.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(VerificationError, match=r"answers/labels.npy: was changed"):
        _answers(bundle)


def test_a_manifest_that_points_at_answers_it_does_not_list_is_refused(built: Path):
    text = _manifest_text(built).replace(b'"labels": "answers/labels.npy"', b'"labels": "answers/none.npy"')
    with pytest.raises(VerificationError, match=r"points at 'answers/none.npy'"):
        parse_manifest(text, "manifest.json")
