"""The gates of a release, each on rows of its own, then on made-up bundles."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilekd.errors import ConfigError, VerificationError
from mobilekd.profile import Budget
from mobilekd.release.answers import Answers
from mobilekd.release.gate_facts import Facts, check_comparable, read_finished
from mobilekd.release.gates import RULES, Gate, check
from mobilekd.release.manifest import Licence

from .workshop import MODELS, Workshop

Row = Mapping[str, Any]

MODEL = {"deployment": "tflite-int8", "backend": "tflite", "precision": "int8", "kernels": "xnnpack"}
PROVED = {**MODEL, "bytes": 1000, "top1_deployed": 0.8, "top1_agreement": 0.98, "mean_error_steps": 0.04}
COUNTED = {"guest_instructions": {"total": 1_500_000}, "place": "emulator", "ran_on": "emulated cortex-a76"}
ON_PHONE = {"on_target": True, "place": "device", "ran_on": "target"}


def _facts(*latency: Row, parity: Sequence[Row] = (PROVED,), **more: Any) -> Facts:
    return Facts("new", parity, [{**MODEL, **row} for row in latency], **more)


def _gate(facts: Facts, against: Facts | None = None, **limits: Any) -> Gate:
    (gate,) = check(Budget.model_validate(limits), facts, against)
    return gate


def _answers(right: int, of: int = 100) -> Answers:
    """Return answers of a class-0 student that knows every image, and of a model that knows the first ones."""
    labels = np.zeros(of, np.uint16)
    model = labels.copy()
    model[right:] = 1
    return Answers(("zero", "one"), labels, {"student": labels, "teacher": labels}, {"tflite-int8": model})


def test_every_budget_has_a_rule():
    assert set(RULES) == set(Budget.model_fields)


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ({"guest_instructions": 1_500_000}, "holds"),
        ({"guest_instructions": 1_499_999}, "over"),
        ({"model_bytes": 999}, "over"),
        ({"agreement": 0.98}, "holds"),
        ({"agreement": 0.981}, "over"),
        ({"error_steps": 0.04}, "holds"),
        ({"error_steps": 0.039}, "over"),
        ({"peak_memory_bytes": 10}, "not measured"),
        ({"p50_ms": 1.0}, "not measured"),
        ({"bundle_bytes": 10}, "not measured"),
        ({"release_top1_drop": 0.5}, "not measured"),
        ({"class_top1_drop": 0.5}, "not measured"),
        ({"licences": ("MIT",)}, "not measured"),
    ],
)
def test_verdict_on_a_counted_model(limits: dict[str, Any], verdict: str):
    assert _gate(_facts(COUNTED), **limits).verdict == verdict


NOISY = {"verdict": "noisy", "verdict_reason": "noisy: block medians fell by 23%"}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"verdict": "trusted", "p50_ms": 0.9}, "holds"),
        ({"p50_ms": 0.9}, "holds"),
        ({**NOISY, "p50_ms": 0.9}, "not measured"),
        ({"verdict": "throttled", "p50_ms": 0.9}, "not measured"),
        ({**NOISY, "p50_ms": 1.1}, "over"),
    ],
)
def test_a_time_in_doubt_holds_no_budget_and_may_fail_one(found: Row, verdict: str):
    assert _gate(_facts({**ON_PHONE, **found}), p50_ms=1.0).verdict == verdict


@pytest.mark.parametrize("p50_ms", [0.9, 1.1])
def test_a_time_in_doubt_is_told_with_its_reason(p50_ms: float):
    assert _gate(_facts({**ON_PHONE, **NOISY, "p50_ms": p50_ms}), p50_ms=1.0).note == NOISY["verdict_reason"]


def test_int8_is_not_shown_to_be_faster_than_an_fp32_time_in_doubt():
    beside = {**ON_PHONE, **NOISY, "deployment": "tflite-fp32"}
    gate = _gate(_facts({**ON_PHONE, "int8_speedup": 2.0, "backend": "tflite"}, beside), int8_beats_fp32=True)
    assert (gate.verdict, gate.note) == ("not measured", "fp32 is noisy: block medians fell by 23%")


def test_what_was_not_measured_says_why_and_what_would_measure_it():
    gate = _gate(_facts(COUNTED), p50_ms=1.0)
    assert gate.sentence() == (
        "tflite-int8: budget.p50_ms was not measured (it ran on emulated cortex-a76): "
        "attach the device, then build with --remeasure"
    )


@pytest.mark.parametrize(
    ("place", "verdict"),
    [(ON_PHONE, "over"), ({"place": "emulator"}, "over"), ({"place": "host"}, "not measured")],
)
def test_memory_counts_on_the_device_or_its_emulator(place: Row, verdict: str):
    assert _gate(_facts({**place, "peak_memory_bytes": 11}), peak_memory_bytes=10).verdict == verdict


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({**COUNTED, "int8_speedup": 1.01}, "holds"),
        ({**COUNTED, "int8_speedup": 1.0}, "over"),
        ({**ON_PHONE, "int8_speedup": 0.9}, "over"),
        ({"place": "host", "int8_speedup": 2.0}, "not measured"),
        (ON_PHONE, "not measured"),
    ],
)
def test_int8_must_be_faster_where_it_was_measured(row: Row, verdict: str):
    assert _gate(_facts(row), int8_beats_fp32=True).verdict == verdict


def test_int8_beats_fp32_is_told_when_both_intervals_overlap():
    int8 = {**ON_PHONE, "int8_speedup": 1.1, "ci95_ms": (1.0, 1.2)}
    fp32 = {"deployment": "tflite-fp32", "precision": "fp32", "ships": False, "ci95_ms": (1.1, 1.3)}
    assert "overlap" in _gate(_facts(int8, fp32), int8_beats_fp32=True).note


def test_int8_beats_fp32_says_nothing_of_a_float_model():
    row = {**PROVED, "precision": "fp32"}
    assert check(Budget(int8_beats_fp32=True), _facts(COUNTED, parity=[row])) == ()


def test_int8_beats_fp32_set_to_false_is_not_checked():
    assert check(Budget(int8_beats_fp32=False), _facts(COUNTED)) == ()


def test_a_number_just_past_its_limit_is_told_with_digits_that_differ():
    gate = _gate(_facts({**COUNTED, "guest_instructions": {"total": 1_500_001}}), guest_instructions=1_500_000)
    assert (gate.shown, gate.allowed) == ("1.500001 M instr.", "1.500000 M instr.")


def test_a_loss_says_its_interval_and_that_the_limit_is_within_its_noise():
    gate = _gate(_facts(answers=_answers(98)), student_top1_drop=0.01)
    assert (gate.verdict, gate.shown) == ("over", "2.00 points")
    assert gate.note == "95 % interval -1.35 to 5.27 points, 100 images; the limit is within the noise of 100 images"


def test_a_clear_loss_is_not_called_noise():
    gate = _gate(_facts(answers=_answers(50)), student_top1_drop=0.01)
    assert "noise" not in gate.note


def test_other_kernels_are_compared_with_the_network_on_the_images_that_they_answered():
    slow = {**PROVED, "kernels": "reference", "images": 10, "top1_deployed": 0.7}
    gate = _gate(_facts(parity=[{**PROVED, "top1_deployed": 0.98}, slow], answers=_answers(98)), top1_drop=0.1)
    assert (gate.measured, gate.note) == (pytest.approx(0.3), "reference kernels, first 10 images")


def test_the_worst_class_is_named():
    gate = _gate(_facts(answers=_answers(98)), class_top1_drop=0.01)
    assert gate.note.startswith("class 'zero', the worst of 2; 95 % interval")


def test_a_release_is_compared_with_the_last_one_image_by_image():
    gate = _gate(_facts(answers=_answers(90)), _facts(answers=_answers(98)), release_top1_drop=0.05)
    assert (gate.verdict, gate.measured) == ("over", pytest.approx(0.08))


def test_a_class_is_compared_with_the_last_release():
    gate = _gate(_facts(answers=_answers(90)), _facts(answers=_answers(98)), release_class_top1_drop=0.05)
    assert (gate.verdict, gate.measured) == ("over", pytest.approx(0.08))


def test_a_last_release_without_answers_is_compared_by_its_top1():
    old = _facts(parity=[{**PROVED, "top1_deployed": 0.85}])
    gate = _gate(_facts(answers=_answers(80)), old, release_top1_drop=0.01)
    assert (gate.verdict, gate.measured, gate.drop) == ("over", pytest.approx(0.05), None)


def test_a_deployment_that_the_last_release_lacks_is_not_measured():
    old = Facts("old.zip", [{**PROVED, "deployment": "mnn-int8"}], ())
    gate = _gate(_facts(), old, release_top1_drop=0.01)
    assert (gate.verdict, gate.note) == ("not measured", "old.zip did not run tflite-int8")


def test_licences_of_models_data_and_networks_count_and_those_of_tools_do_not():
    held = [
        ("the models in this bundle", "MIT"),
        ("data set digits", "CC-BY-4.0"),
        ("network x", "MIT OR GPL-3.0-only"),
    ]
    licences = tuple(Licence(covers=one, licence=text) for one, text in (*held, ("tool mnn 3", "GPL-3.0-only")))
    assert _gate(_facts(licences=licences), licences=("MIT", "CC-BY-4.0")).verdict == "holds"


def test_a_licence_that_is_not_stated_is_refused_even_when_the_words_are_allowed():
    facts = _facts(licences=(Licence(covers="network x", licence="not stated"),))
    gate = _gate(facts, licences=("not stated",))
    assert (gate.verdict, gate.shown) == ("over", "network x: not stated")
    assert "bundle.network_licences" in gate.next_step


def test_a_bundle_that_names_no_licence_does_not_hold():
    assert _gate(_facts(licences=()), licences=("MIT",)).verdict == "not measured"


def test_no_model_no_gates():
    assert check(Budget(bundle_bytes=1), Facts("the build", (), ())) == ()


ALL = Budget(
    guest_instructions=500_000,
    bundle_bytes=100_000_000,
    student_top1_drop=0.02,
    release_top1_drop=0.0,
    class_top1_drop=0.2,
    release_class_top1_drop=0.0,
    agreement=0.99,
    error_steps=0.5,
    int8_beats_fp32=True,
    licences=("Apache-2.0", "CC-BY-4.0"),
)


def test_a_bundle_is_judged_by_what_it_carries(tmp_path: Path):
    bundle = Workshop(tmp_path, place="emulator", budget=ALL).bundle() / "bundle.zip"
    finished = read_finished(bundle)
    gates = check(finished.budget, finished.facts, finished.facts)
    verdicts = {(gate.budget, gate.deployment): gate.verdict for gate in gates}
    assert [name for name, verdict in verdicts.items() if verdict == "over"] == [
        ("guest_instructions", "onnxruntime-int8"),
        ("guest_instructions", "mnn-int8"),
    ]
    assert {name[1] for name, verdict in verdicts.items() if verdict == "not measured"} == {"tensorrt-int8"}
    assert verdicts["licences", ""] == "holds"


def test_the_sentences_of_a_bundle_stand_where_their_facts_do(tmp_path: Path):
    budget = Budget(guest_instructions=1, agreement=1.0, licences=("MIT",))
    bundle = Workshop(tmp_path, models=MODELS[1:2], place="emulator", budget=budget).bundle() / "bundle"
    text = (bundle / "manifest.json").read_text()
    measured = (bundle / "measurements/manifest.json").read_text()
    assert [key in text for key in ("(budget.agreement)", "(budget.licences)", "(budget.guest")] == [True, True, False]
    assert "(budget.guest_instructions)" in measured


def test_a_budget_that_no_build_measures_stands_under_not_measured(tmp_path: Path):
    workshop = Workshop(tmp_path, models=MODELS[1:2], budget=Budget(guest_instructions=1))
    measured = (workshop.bundle() / "bundle/measurements/manifest.json").read_text()
    assert "tflite-int8: budget.guest_instructions was not measured" in measured


def test_bytes_of_a_bundle_are_those_of_its_files(built: Path):
    size = sum(path.stat().st_size for path in (built / "bundle").rglob("*") if path.is_file())
    assert read_finished(built / "bundle.zip").facts.bundle_bytes == size


def test_folder_and_archive_give_the_same_gates(built: Path):
    folder, archive = (read_finished(built / form) for form in ("bundle", "bundle.zip"))
    assert check(folder.budget, folder.facts) == check(archive.budget, archive.facts)


def test_a_changed_model_is_refused_before_any_gate(tmp_path: Path):
    bundle = Workshop(tmp_path).bundle() / "bundle"
    (bundle / "models/mnn-int8.mnn").write_bytes(b"other")
    with pytest.raises(VerificationError, match=r"models/mnn-int8.mnn"):
        read_finished(bundle)


def test_releases_of_other_classes_are_not_compared():
    new, old = _facts(labels=("cat", "dog")), _facts(labels=("cat", "eel"))
    with pytest.raises(ConfigError, match="class 1 is 'eel' there and 'dog' here: their answers can't be compared"):
        check_comparable(new, old)


def test_releases_with_more_classes_are_not_compared():
    with pytest.raises(ConfigError, match="new has 2 classes, new has 1"):
        check_comparable(_facts(labels=("cat",)), _facts(labels=("cat", "dog")))


def test_releases_tested_on_other_images_are_not_compared():
    new, old = _facts(test_files={"test_images.npy": "ab"}), _facts(test_files={"test_images.npy": "cd"})
    with pytest.raises(ConfigError, match="tested on other images"):
        check_comparable(new, old)


def test_releases_with_other_labels_are_not_compared():
    other = replace(_answers(5), labels=np.ones(100, np.uint16))
    with pytest.raises(ConfigError, match="tested on other images"):
        check_comparable(_facts(answers=_answers(5)), _facts(answers=other))


def test_a_licence_that_steers_a_terminal_is_shown_as_text():
    facts = _facts(licences=(Licence(covers="network x", licence="\x1b[2Jmine"),))
    assert _gate(facts, licences=("MIT",)).shown == "network x: �[2Jmine"
