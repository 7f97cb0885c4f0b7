from dataclasses import replace
from pathlib import Path

import pytest

from mobilekd import artifacts
from mobilekd.artifacts import Artifact
from mobilekd.errors import ConfigError
from mobilekd.plugins import STAGES
from mobilekd.release.bundle import inspect, verify
from mobilekd.stage import Context, Inputs
from mobilekd.stages.bundle import Bundle

from ..conftest import Silent
from .workshop import MODELS, Workshop

KINDS = {
    "dataset": artifacts.Dataset,
    "teacher": artifacts.Teacher,
    "student": artifacts.Student,
    "quantized": artifacts.QatStudent,
    "simplified": artifacts.SimplifiedModel,
    "parity": artifacts.ParityReport,
    "latency": artifacts.LatencyReport,
    "deployed-tensorrt-int8": artifacts.DeployedModel,
}


def test_stage_packs_what_the_stages_before_it_made(tmp_path: Path):
    made = Workshop(tmp_path, models=MODELS[3:4])
    made.evidence()
    inputs = Inputs([kind(tmp_path / name, name) for name, kind in KINDS.items()])
    stages = Bundle(pipeline_name="quick", licence="MIT").for_profile(made.profile())
    stages[0].run(inputs, _context(tmp_path))
    assert inspect(tmp_path / "made/bundle.zip")["pipeline"] == "quick"
    assert verify(tmp_path / "made/bundle").not_run == (("tensorrt-int8", "built, not run: no GPU on this host"),)


def _context(folder: Path) -> Context:
    (folder / "made").mkdir()
    return Context(out=folder / "made", scratch=folder, toolchains=folder, progress=Silent())


def test_stage_reads_every_kind_it_says():
    assert set(Bundle.needs) | set(Bundle.gathers) == set(KINDS.values())
    assert issubclass(Bundle.makes, Artifact)


def test_every_artifact_but_a_measurement_is_read_on_the_way_to_a_bundle():
    stages = [kind for kind in map(STAGES.load, STAGES.names()) if not kind.measures]
    read = {one for kind in stages for one in (*kind.needs, *kind.gathers, *kind.welcomes)}
    assert {kind.makes for kind in stages} - read == {artifacts.Bundle}


def test_a_missing_validator_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mobilekd.stages._packages.find_spec", lambda name: None if name == "cyclonedx" else name)
    assert Bundle().missing() == ("not installed: cyclonedx; run: pip install 'mobilekd[release]'",)


def test_profile_is_an_option_and_so_part_of_the_key(workshop: Workshop):
    profile = workshop.profile()
    other = replace_budget(workshop)
    assert Bundle().for_profile(profile)[0].options() != Bundle().for_profile(other)[0].options()


def replace_budget(workshop: Workshop):
    return replace(workshop, budget=workshop.budget.model_copy(update={"model_bytes": 1})).profile()


def test_stage_without_a_profile_says_how_to_give_one(tmp_path: Path):
    with pytest.raises(ConfigError, match="no profile"):
        Bundle().run(Inputs([]), _context(tmp_path))
