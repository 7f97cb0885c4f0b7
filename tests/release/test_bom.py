import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobilekd.artifacts import DeployedModel, MadeBy, digest_file
from mobilekd.errors import StageError
from mobilekd.release.bom import check_bom, dangling_references, licence_entries

from .test_provenance import FACTS
from .workshop import OPTIONS, Workshop


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = Workshop(tmp_path_factory.mktemp("bom")).bundle(options=replace(OPTIONS, build=FACTS))
    return out / "bundle"


@pytest.fixture
def bom(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / "sbom.cdx.json").read_text())
    return document


def named(bom: dict[str, Any], reference: str) -> dict[str, Any]:
    return next(one for one in bom["components"] if one["bom-ref"] == reference)


def test_it_is_cyclonedx_1_6(bundle: Path, bom: dict[str, Any]):
    check_bom((bundle / "sbom.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")


def test_every_model_file_has_its_digest(bundle: Path, bom: dict[str, Any]):
    models = [one for one in bom["components"] if one["bom-ref"].startswith("model:")]
    told = {one["name"]: one["hashes"][0]["content"] for one in models}
    assert told == {f"models/{path.name}": digest_file(path) for path in (bundle / "models").iterdir()}


def test_the_bundle_has_a_model_card(bom: dict[str, Any]):
    card = bom["metadata"]["component"]["modelCard"]["modelParameters"]
    assert (card["task"], card["modelArchitecture"]) == ("image classification", "timm:mobilenetv3_small_100")
    assert card["inputs"] == [{"format": "float32 NHWC [1, 8, 8, 3]"}]


def test_metrics_are_top1_of_networks_and_deployments_as_text(bom: dict[str, Any]):
    metrics = bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    told = {one["slice"]: one["value"] for one in metrics}
    assert told["test split, Teacher"] == "0.9944"
    assert told["test split, tflite-int8 (xnnpack)"] == "0.9861"
    assert len(told) == 3 + 5


def test_the_data_set_is_data_with_the_digest_of_the_artifact(bom: dict[str, Any]):
    data = named(bom, "data-set")
    properties = {one["name"]: one["value"] for one in data["properties"]}
    assert (data["type"], data["data"][0]["type"]) == ("data", "dataset")
    assert properties["mobilekd:artifact.sha256"] == "a" * 64


def test_tools_have_versions_and_package_urls(bom: dict[str, Any]):
    torch = named(bom, "tool:torch")
    assert (torch["version"], torch["purl"]) == ("2.13.0", "pkg:pypi/torch@2.13.0")


def test_a_model_depends_on_the_student_and_on_what_wrote_it(bom: dict[str, Any]):
    depends = {one["ref"]: one.get("dependsOn") for one in bom["dependencies"]}
    assert depends["model:tflite-int8"] == ["network:student", "tool:tflite"]
    assert depends["network:student"] == ["data-set", "network:teacher"]


def test_every_component_stands_among_the_dependencies(bom: dict[str, Any]):
    assert {one["ref"] for one in bom["dependencies"]} == {"bundle", *(one["bom-ref"] for one in bom["components"])}


def test_no_clock_and_no_chance_stand_in_it(bundle: Path, tmp_path: Path):
    again = Workshop(tmp_path).bundle(options=replace(OPTIONS, build=FACTS))
    text = (bundle / "sbom.cdx.json").read_text()
    assert (again / "bundle/sbom.cdx.json").read_text() == text
    assert "timestamp" not in text


def test_the_serial_number_is_of_the_content(bom: dict[str, Any], tmp_path: Path):
    other = Workshop(tmp_path).bundle(options=replace(OPTIONS, licence="MIT", build=FACTS))
    serial = json.loads((other / "bundle/sbom.cdx.json").read_text())["serialNumber"]
    assert serial != bom["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", serial)


def test_a_misspelt_key_is_refused(bom: dict[str, Any]):
    bom["metadata"]["component"]["modelcard"] = bom["metadata"]["component"].pop("modelCard")
    with pytest.raises(StageError, match=r"sbom\.cdx\.json"):
        check_bom(json.dumps(bom))


def test_a_reference_to_nothing_is_found(bom: dict[str, Any]):
    bom["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"] = [{"ref": "gone"}]
    check_bom(json.dumps(bom))  # the schema has no eye for it
    assert dangling_references(bom) == ["gone"]


def test_a_name_that_two_components_share_is_found(bom: dict[str, Any]):
    bom["components"][1]["bom-ref"] = bom["components"][0]["bom-ref"]
    assert bom["components"][0]["bom-ref"] in dangling_references(bom)


@pytest.mark.parametrize(
    ("licence", "entries"),
    [
        ("Apache-2.0", [{"license": {"id": "Apache-2.0"}}]),
        ("MIT AND (Apache-2.0 OR BSD-2-Clause)", [{"expression": "MIT AND (Apache-2.0 OR BSD-2-Clause)"}]),
        ("Apache Software License", [{"license": {"name": "Apache Software License"}}]),
        ("OpenRAIL-M", [{"license": {"name": "OpenRAIL-M"}}]),
        ("not stated", []),
        ("", []),
    ],
)
def test_a_licence_is_an_id_an_expression_or_a_name(licence: str, entries: list[dict[str, Any]]):
    assert licence_entries(licence) == entries


def test_a_tool_that_was_not_there_is_no_component(tmp_path: Path):
    made_by = MadeBy("convert", "convert", 1, {}, {}, {"tensorrt_rtx": "absent"})
    build = replace(FACTS, made=(*FACTS.made, DeployedModel(Path("here/model"), "f" * 64, made_by)))
    out = Workshop(tmp_path).bundle(options=replace(OPTIONS, build=build))
    assert "tensorrt_rtx" not in (out / "bundle/sbom.cdx.json").read_text()
