import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobilekd.artifacts import Dataset, LatencyReport, MadeBy, Student, canonical_json
from mobilekd.errors import VerificationError
from mobilekd.profile import BenchmarkSettings, DeviceSettings
from mobilekd.release.provenance import BuildFacts, Provenance, parse_provenance, provenance_of, provenance_text

from .workshop import OPTIONS, Workshop

DATA = MadeBy("data", "data", 2, {"seed": 7, "path": "<given>"}, {"path": "d" * 64}, {"pillow": "13.0.0"})
DISTIL = MadeBy("distill", "distill", 3, {"learning_rate": 4e-3}, {}, {"torch": "2.13.0"})
FACTS = BuildFacts(
    command="mobilekd build --profile android-arm64 --pipeline quickstart",
    seed=7,
    made=(
        Dataset(Path("here/data"), "a" * 64, DATA),
        Student(Path("here/student"), "b" * 64, DISTIL),
        LatencyReport(Path("here/latency"), "c" * 64),
    ),
    python="3.11",
    machine="x86_64",
    code="e" * 64,
)


@pytest.fixture
def provenance(workshop: Workshop) -> Provenance:
    return provenance_of(FACTS, "quickstart", workshop.profile())


def test_it_has_the_parts_that_slsa_v1_asks_for(provenance: Provenance):
    document = json.loads(provenance_text(provenance))
    assert document.keys() == {"buildDefinition", "runDetails"}
    assert document["buildDefinition"].keys() == {
        "buildType",
        "externalParameters",
        "internalParameters",
        "resolvedDependencies",
    }
    assert document["runDetails"]["builder"]["id"].startswith("urn:")


def test_the_message_of_in_toto_takes_it(provenance: Provenance):
    json_format = pytest.importorskip("google.protobuf.json_format")
    slsa = pytest.importorskip("in_toto_attestation.predicates.provenance.v1.provenance_pb2")
    message = json_format.Parse(provenance_text(provenance), slsa.Provenance())  # refuses a field that it does not know
    assert message.run_details.builder.version["torch"] == "2.13.0"


def test_numbers_keep_their_kind(provenance: Provenance):
    text = provenance_text(provenance)
    assert '"seed": 7' in text
    assert '"learning_rate": 0.004' in text


def test_dependencies_are_what_came_from_outside(provenance: Provenance):
    assert provenance.dependencies == {"mobilekd code": "e" * 64, "data set": "a" * 64, "data: path": "d" * 64}


def test_every_stage_but_the_measurement_is_there_with_what_it_made(provenance: Provenance):
    assert provenance.made == {"data": "a" * 64, "distill": "b" * 64}
    assert [one.label for one in provenance.asked.pipeline.stages] == ["data", "distill", "bundle"]


def test_tools_of_all_stages_are_there(provenance: Provenance):
    assert provenance.tools == {"pillow": "13.0.0", "torch": "2.13.0", "python": "3.11"}


def test_no_folder_is_named(provenance: Provenance):
    assert "here" not in provenance_text(provenance)


def test_how_and_where_latency_is_measured_changes_no_byte(workshop: Workshop, provenance: Provenance):
    elsewhere = {
        "device": DeviceSettings(transport="ssh", host="me@board-7"),
        "benchmark": BenchmarkSettings(timed_runs=999),
    }
    other = provenance_of(FACTS, "quickstart", workshop.profile().model_copy(update=elsewhere))
    assert provenance_text(other) == provenance_text(provenance)


def test_a_float_baseline_changes_it(workshop: Workshop, provenance: Provenance):
    without = workshop.profile().model_copy(update={"benchmark": BenchmarkSettings(baseline="none")})
    assert provenance_text(provenance_of(FACTS, "quickstart", without)) != provenance_text(provenance)


def test_it_reads_what_it_wrote(provenance: Provenance):
    assert parse_provenance(provenance_text(provenance).encode(), "x") == provenance


@pytest.mark.parametrize(
    ("old", "new"),
    [("urn:mobilekd:build:1", "urn:other:build:1"), ('"seed": 7', '"seed": 7.5'), ('"seed"', '"sneed"'), ("{\n", "{")],
)
def test_another_form_is_refused(provenance: Provenance, old: str, new: str):
    content = provenance_text(provenance).replace(old, new)
    with pytest.raises(VerificationError, match=r"^x: "):
        parse_provenance(content.encode(), "x")


def test_a_bundle_carries_it_under_its_digest(tmp_path: Path):
    out = Workshop(tmp_path).bundle(options=replace(OPTIONS, build=FACTS))
    written = parse_provenance((out / "bundle/provenance.json").read_bytes(), "x")
    listed = [entry["path"] for entry in json.loads((out / "bundle/manifest.json").read_text())["files"]]
    assert written.asked.command == FACTS.command
    assert "provenance.json" in listed


def test_the_report_shows_command_digests_and_tools(tmp_path: Path):
    out = Workshop(tmp_path).bundle(options=replace(OPTIONS, build=FACTS))
    page = (out / "bundle/report.html").read_text()
    assert [word for word in (FACTS.command, "d" * 64, "2.13.0") if word not in page] == []


def test_a_dependency_without_a_digest_is_refused(provenance: Provenance):
    document = json.loads(provenance_text(provenance))
    document["buildDefinition"]["resolvedDependencies"][0]["digest"] = {}
    with pytest.raises(VerificationError, match="resolvedDependencies"):
        parse_provenance(canonical_json(document).encode(), "provenance.json")
