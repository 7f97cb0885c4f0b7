"""The ranking as a stage and as a command."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mobilekd import cli
from mobilekd.artifacts import Dataset, SensitivityReport, Student, write_json
from mobilekd.config import Pipeline, load_pipeline, load_profile, parse_override
from mobilekd.errors import ConfigError
from mobilekd.sensitivity import with_sensitivity
from mobilekd.show_sensitivity import show_sensitivity
from mobilekd.stage import Context, Inputs
from mobilekd.stages.quantize import Quantize
from mobilekd.stages.sensitivity import Sensitivity
from mobilekd.training.data import DatasetFacts, write_facts
from tests.quantization.plain import CLASSES, SIZE, images, plain
from tests.toys import Silent, toy_pipeline


def dataset(folder: Path) -> Path:
    """Write the images of the plain network as pixels, labelled with what it answers."""
    count = 40
    splits = {"train": count, "calibration": count, "test": count}
    facts = DatasetFacts(
        "noise", tuple("abcde"), (SIZE, SIZE), (0.5,) * 3, (1 / 16,) * 3, "none", splits, "", ""
    )  # fmt: skip
    write_facts(facts, folder)
    pixels = ((images(count) / 16 + 0.5) * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    given = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) * 16
    with torch.no_grad():
        labels = plain()(given).argmax(dim=1).numpy()
    for split in splits:
        np.save(folder / f"{split}_images.npy", pixels.numpy())
        np.save(folder / f"{split}_labels.npy", labels)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    data, student = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("student")
    write_json(student / "network.json", {"network": "python:tests.quantization.plain:plain", "classes": CLASSES})
    safetensors.torch.save_file(plain().state_dict(), student / "model.safetensors")
    return Inputs([Dataset(dataset(data), "data"), Student(student, "student")])


@pytest.fixture(scope="module")
def report(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report")
    Sensitivity(max_top1_drop=0.25, images=32, threads=1).run(inputs, Context(out, out, out, Silent()))
    return out


@pytest.fixture
def document(report) -> dict:
    return json.loads((report / "sensitivity.json").read_text())


def test_the_stage_ranks_as_many_images_as_it_is_told(document) -> None:
    assert (document["schema"], document["images"], document["top1_float"]) == ("mobilekd.sensitivity/1", 32, 1.0)
    assert document["layers"][0]["layer"] == "spoiled"
    assert document["layers"][0].keys() == {"layer", "operator", "weights", "macs", "top1_drop", "kl"}


def test_the_price_of_what_the_profile_keeps_is_measured_on_the_host(document) -> None:
    assert document["mixed"]["layers"] == ["spoiled"]
    times = document["mixed"]["host_wall_ms"]
    assert min(times["int8"], times["mixed"]) > 0
    assert "not the target's" in times["note"]


def test_json_is_the_report(report, document, capfd: pytest.CaptureFixture[str]) -> None:
    show_sensitivity(report, as_json=True)
    assert json.loads(capfd.readouterr().out) == document


def test_the_table_has_a_line_for_each_layer_and_the_price_below(report, capfd: pytest.CaptureFixture[str]) -> None:
    show_sensitivity(report, as_json=False)
    out = capfd.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[2:7]][:2] == ["layer", "spoiled"]
    assert "price: 192 B more, 7.47 % of the multiply-accumulates in float" in out
    assert "not the target's" in out


def test_a_build_records_what_it_keeps_and_says_so(inputs, tmp_path: Path) -> None:
    context = Context(tmp_path, tmp_path, tmp_path, Silent())
    Quantize(epochs=0, threads=1, max_top1_drop=0.25).run(inputs, context)
    facts = json.loads((tmp_path / "network.json").read_text())
    assert (facts["keep_float"], facts["mixed"]["layers"]) == (["spoiled"], ["spoiled"])
    assert "spoiled" in next(line for line in context.progress.lines if "stay float" in line)


def test_a_drop_out_of_the_profile_reaches_both_stages() -> None:
    profile = load_profile("host", [parse_override("profile.max_top1_drop=0.01")])
    found = [stage.for_profile(profile)[0] for stage in (Quantize(), Sensitivity())]
    assert [one.max_top1_drop for one in found] == [0.01, 0.01]


def test_a_profile_without_a_drop_leaves_the_pipelines() -> None:
    (stage,) = Quantize(max_top1_drop=0.02).for_profile(load_profile("host"))
    assert stage.max_top1_drop == 0.02


def pipeline(*overrides: str) -> Pipeline:
    return load_pipeline("quickstart", [parse_override(one) for one in overrides])


def test_the_ranking_ends_a_pipeline_behind_its_student_with_the_options_of_quantize() -> None:
    found = with_sensitivity(pipeline("quantize.equalize=true", "quantize.calibration_images=99"), images=7)
    assert [stage.stage_name() for stage in found.stages] == ["data", "teacher", "distill", "sensitivity"]
    ranked = found.stages[-1]
    assert (ranked.equalize, ranked.calibration_images, ranked.images, ranked.makes) == (True, 99, 7, SensitivityReport)


def test_a_pipeline_that_names_the_ranking_has_its_options_there() -> None:
    named = pipeline('stages=["data","teacher","distill","quantize","sensitivity"]', "sensitivity.images=9")
    assert with_sensitivity(named).stages[-1].images == 9


def test_a_pipeline_without_a_student_is_refused() -> None:
    with pytest.raises(ConfigError, match="'toy' has no stage 'distill'"):
        with_sensitivity(toy_pipeline())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--images", "0"], "--images"),
        (["--set", "quantize.activation_range=widest"], "quantize.activation_range"),
        (["--set", "profile.max_top1_drop=2"], "max_top1_drop"),
        (["--set", "sensitivity.images=3"], "sensitivity is not a stage of this pipeline"),
        (["--pipeline", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_option_ends_in_2(options: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sensitivity", *options]) == 2
    out, err = capfd.readouterr()
    assert (out, told in err) == ("", True)
