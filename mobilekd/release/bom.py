"""sbom.cdx.json: what a bundle holds and was made with, as a CycloneDX 1.6 bill of materials for models.

The document is a plain dict: the library models neither modelCard nor
component.data, and drops both on a round trip
(https://github.com/CycloneDX/cyclonedx-python-lib/issues/912). It validates the
text that is written. No clock: the serial number is of the content.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from mobilekd.artifacts import canonical_json
from mobilekd.backend import TensorFacts
from mobilekd.errors import StageError
from mobilekd.release.evidence import Evidence, Trained
from mobilekd.release.licences import NOT_STATED, tool_licence
from mobilekd.release.manifest import FileEntry, Manifest, ModelEntry
from mobilekd.release.provenance import DATA_SET, PROVENANCE, Provenance
from mobilekd.versions import ABSENT

BOM = "sbom.cdx.json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:mobilekd:sbom")
_TEACHER, _STUDENT, _DATA = "network:teacher", "network:student", "data-set"
_OURS = "mobilekd"
_NO_DISTRIBUTION = {"python"}

Component = dict[str, Any]


def bom_text(evidence: Evidence, manifest: Manifest, provenance: Provenance) -> str:
    """Return the text of sbom.cdx.json, validated.

    Args:
        evidence: Names networks and licences.
        manifest: Of the bundle as far as it is written: the files that stand in it are listed with their digests.
        provenance: Names the tools, and the digest of the data set.

    Raises:
        StageError: What we wrote is no CycloneDX document: a bug.
    """
    document = bom_document(evidence, manifest, provenance)
    text = canonical_json(document)
    check_bom(text)
    if dangling := dangling_references(document):
        raise StageError(f"{BOM}: refers to {dangling[0]!r}, which is none of its components")
    return text


def bom_document(evidence: Evidence, manifest: Manifest, provenance: Provenance) -> dict[str, Any]:
    """Return the bill of materials."""
    files = {entry.path: entry for entry in manifest.files}
    models_licence = manifest.licences[0].licence
    known = {**provenance.tools, **_writers(manifest)}
    tools = {name: version for name, version in sorted(known.items()) if version != ABSENT}
    networks = [_network(_TEACHER, evidence.teacher), _network(_STUDENT, evidence.student)]
    models = [_model(model, files[model.file], models_licence) for model in manifest.models]
    components = [
        *models,
        *networks,
        _data_set(evidence, manifest, provenance),
        *(_tool(name, version) for name, version in tools.items()),
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _bundle(evidence, manifest, files, models_licence)},
        "components": components,
        "dependencies": list(_dependencies(manifest, components, tools)),
    }
    return {**document, "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, canonical_json(document))}"}


def check_bom(text: str) -> None:
    """Accept a text that the schema of CycloneDX 1.6 takes.

    Raises:
        StageError: It does not; the message names the place.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        raise StageError(f"{BOM}: {str(fault.data)[:500]}")


def dangling_references(document: Mapping[str, Any]) -> list[str]:
    """Return references that name no component, and names that two components share; the schema checks neither."""
    top = document["metadata"]["component"]
    known = [top["bom-ref"], *(one["bom-ref"] for one in document["components"])]
    used = [one["ref"] for one in top["modelCard"]["modelParameters"]["datasets"]]
    used += [name for one in document["dependencies"] for name in (one["ref"], *one.get("dependsOn", []))]
    return [name for name in used if name not in known] + [name for name in set(known) if known.count(name) > 1]


def licence_entries(licence: str) -> list[dict[str, Any]]:
    """Return a licence as CycloneDX writes it: an SPDX id, an expression, or a free name; nothing if not stated."""
    from cyclonedx.spdx import is_expression, is_supported_id

    if licence in {"", NOT_STATED}:
        return []
    if is_supported_id(licence):
        return [{"license": {"id": licence}}]
    return [{"expression": licence}] if is_expression(licence) else [{"license": {"name": licence}}]


def _bundle(evidence: Evidence, manifest: Manifest, files: Mapping[str, FileEntry], models_licence: str) -> Component:
    name = f"{manifest.pipeline or manifest.dataset.name}-{manifest.profile.name}"
    provenance = {
        "type": "attestation",
        "url": PROVENANCE,
        "comment": "how the bundle was made, as a SLSA v1 predicate",
        "hashes": _hashes(files[PROVENANCE].sha256),
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": "bundle",
        "name": name,
        "description": f"Image classification for {manifest.profile.title}",
        "licenses": licence_entries(models_licence),
        "externalReferences": [provenance],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "image classification",
                "modelArchitecture": evidence.student.network.network,
                "datasets": [{"ref": _DATA}],
                "inputs": _formats(model.input for model in manifest.models),
                "outputs": _formats(model.output for model in manifest.models),
            },
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(evidence))},
        },
    }


def _metrics(evidence: Evidence) -> Iterator[dict[str, str]]:
    """Yield top-1 on the test split of every network, and of every deployment under every kernel set that ran."""
    for trained in evidence.trained:
        yield {"type": "top-1", "value": str(trained.metrics.top1_test), "slice": f"test split, {trained.role}"}
    for row in evidence.parity.rows:
        if row.ships and row.top1_deployed is not None:
            where = f"test split, {row.deployment} ({row.kernels or 'default'})"
            yield {"type": "top-1", "value": str(row.top1_deployed), "slice": where}


def _model(model: ModelEntry, file: FileEntry, licence: str) -> Component:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.deployment}",
        "name": model.file,
        "hashes": _hashes(file.sha256),
        "licenses": licence_entries(licence),
        "properties": _properties({"bytes": file.bytes, **model.options.model_dump(mode="json", exclude={"ships"})}),
    }


def _network(reference: str, trained: Trained) -> Component:
    return {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": trained.network.network,
        "description": trained.role,
        "licenses": licence_entries(trained.network.licence),
        "properties": _properties({"parameters": trained.metrics.parameters, "top1_test": trained.metrics.top1_test}),
    }


def _data_set(evidence: Evidence, manifest: Manifest, provenance: Provenance) -> Component:
    splits = ", ".join(f"{count} {name}" for name, count in manifest.dataset.splits.items())
    digest = provenance.dependencies.get(DATA_SET)
    facts = {"images": splits, "classes": len(evidence.dataset.classes)}
    facts |= {f"{name}.sha256": sha256 for name, sha256 in sorted(manifest.dataset.test_files.items())}
    return {
        "type": "data",
        "bom-ref": _DATA,
        "name": manifest.dataset.name,
        "description": manifest.dataset.source,
        "licenses": licence_entries(evidence.dataset.licence),
        "data": [{"type": "dataset", "name": manifest.dataset.name, "description": f"{splits} images"}],
        "properties": _properties({**facts, **({"artifact.sha256": digest} if digest else {})}),
    }


def _tool(name: str, version: str) -> Component:
    purl = {} if name in _NO_DISTRIBUTION else {"purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"}
    return {
        "type": "library",
        "bom-ref": f"tool:{name}",
        "name": name,
        "version": version,
        "scope": "excluded",  # it made the bundle; it is not in it
        "licenses": licence_entries(tool_licence(name, version)),
        **purl,
    }


def _dependencies(
    manifest: Manifest, components: list[Component], tools: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    writers = {
        f"model:{model.deployment}": [f"tool:{name}" for name in sorted(model.tools)] for model in manifest.models
    }
    ours = [f"tool:{_OURS}"] if _OURS in tools else []
    depends = {
        _TEACHER: [_DATA],
        _STUDENT: [_DATA, _TEACHER],
        **{reference: [_STUDENT, *names] for reference, names in writers.items()},
    }
    yield {"ref": "bundle", "dependsOn": [*writers, *ours]}
    yield from (
        {"ref": one["bom-ref"], "dependsOn": depends[one["bom-ref"]]}
        if one["bom-ref"] in depends
        else {"ref": one["bom-ref"]}
        for one in components
    )


def _writers(manifest: Manifest) -> dict[str, str]:
    """Return the versions of what wrote the model files."""
    return {name: version for model in manifest.models for name, version in model.tools.items()}


def _formats(tensors: Iterator[TensorFacts]) -> list[dict[str, str]]:
    told = (f"{one.dtype} {one.layout} [{', '.join(map(str, one.shape))}]" for one in tensors)
    return [{"format": one} for one in dict.fromkeys(told)]


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _properties(facts: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"mobilekd:{name}", "value": str(value)} for name, value in facts.items() if value is not None]
