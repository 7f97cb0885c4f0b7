"""Writing a bundle: the folder, then its archive. Equal evidence gives equal bytes outside measurements/."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

import mobilekd
from mobilekd.artifacts import files_below
from mobilekd.backend import Float32
from mobilekd.backends._tflite_metadata import ModelCard
from mobilekd.errors import StageError
from mobilekd.preprocessing import normalize
from mobilekd.release.answers import NETWORKS, copy_answers
from mobilekd.release.archive import write_archive
from mobilekd.release.bom import BOM, bom_text
from mobilekd.release.budgets import evidence_facts, over_budget, unknown_budgets
from mobilekd.release.cards import accuracy, dataset_entry, preprocessing, profile_card
from mobilekd.release.embedded import model_card, with_sizes, write_model
from mobilekd.release.evidence import Deployed, Evidence
from mobilekd.release.gate_facts import Facts
from mobilekd.release.gates import MEASURED, PROVED
from mobilekd.release.licences import licences_of, licences_text
from mobilekd.release.manifest import (
    DRIFT,
    LATENCY,
    MANIFEST,
    MEASURED_REPORT,
    MEASUREMENTS,
    MEASUREMENTS_MANIFEST,
    REPORT,
    FileEntry,
    Manifest,
    Measurements,
    ModelEntry,
    Reference,
    ReferenceInput,
    digest_text,
    file_entries,
    manifest_text,
    sealed,
)
from mobilekd.release.provenance import PROVENANCE, BuildFacts, Provenance, provenance_of, provenance_text
from mobilekd.release.recorded import write_drift
from mobilekd.release.reference import Runtime, logit_step
from mobilekd.release.report import measured_report, release_report

IMAGE, INPUT = "reference/image.npy", "reference/input.npy"
NOT_RUN = "built, not run"


@dataclass(frozen=True, slots=True)
class PackOptions:
    """What a bundle says that no earlier stage knows.

    Attributes:
        pipeline: Name of the pipeline.
        licence: Licence of the models, as an SPDX expression; empty when not stated.
        reference_image: Index in the test split of the image of the reference pair.
        build: How the build went, for provenance.json.
    """

    pipeline: str
    licence: str
    reference_image: int
    build: BuildFacts = field(default_factory=BuildFacts)


def write_bundle(evidence: Evidence, options: PackOptions, runtime: Runtime, out: Path, scratch: Path) -> None:
    """Write out/bundle/ and out/bundle.zip.

    Args:
        evidence: What the earlier stages found.
        options: What they did not know.
        runtime: Runs every runnable model once, for the reference outputs.
        out: An existing directory.
        scratch: For the runs.

    Raises:
        StageError: There is no such reference image, or a model gave no logits for it.
    """
    folder = out / "bundle"
    for part in ("models", "reference", MEASUREMENTS):
        (folder / part).mkdir(parents=True)
    shutil.copyfile(evidence.table_path, folder / "quant_table.json")
    if evidence.parity.drift:
        write_drift(evidence.parity.drift_images, evidence.parity.drift, folder / DRIFT)
    labels = tuple(_one_line(name) for name in evidence.dataset.classes)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels), "utf-8")
    reference, image = _write_reference_input(evidence, options, folder)
    card = model_card(evidence.dataset, labels, options.licence)
    writer = _ModelWriter(evidence, card, image, runtime, folder, scratch)
    models = [writer.write(model) for model in evidence.shipped]
    evidence = with_sizes(evidence, writer.added)
    licences = licences_of(evidence, options.licence)
    (folder / "LICENSES.txt").write_text(licences_text(licences), "utf-8")
    provenance = provenance_of(options.build, options.pipeline, evidence.profile)
    (folder / PROVENANCE).write_text(provenance_text(provenance), "utf-8")
    rows = _with_teacher(evidence)
    budget, facts = evidence.profile.budget, evidence_facts(evidence, rows, licences)
    manifest = Manifest(
        form="mobilekd.bundle/1",
        mobilekd=mobilekd.__version__,
        pipeline=options.pipeline,
        profile=profile_card(evidence),
        dataset=dataset_entry(evidence),
        labels=evidence.dataset.classes,
        preprocessing=preprocessing(evidence),
        accuracy=accuracy(evidence),
        models=tuple(models),
        reference=reference,
        parity_images=evidence.parity.images,
        parity=tuple(rows),
        over_budget=over_budget(budget, facts, PROVED),
        not_measured=(*unknown_budgets(budget, facts, PROVED), *not_measured(evidence)),
        licences=licences,
        answers=_network_answers(evidence, folder),
        files=_packed_files(folder),
    )
    (folder / BOM).write_text(bom_text(evidence, manifest, provenance), "utf-8")
    (folder / REPORT).write_text(release_report(evidence, manifest, provenance), "utf-8")
    manifest = manifest.model_copy(update={"files": _packed_files(folder)})
    (folder / MANIFEST).write_text(manifest_text(manifest), "utf-8")
    _write_measurements(evidence, manifest, facts, provenance, folder)
    write_archive(folder, out / "bundle.zip")


def not_measured(evidence: Evidence) -> tuple[str, ...]:
    """Return what a release engineer may not take as proved, a sentence each; says nothing that a clock decides."""
    sentences = {
        model.name: _not_run(model.name, model.facts.note) for model in evidence.deployed if not model.facts.runnable
    }
    for row in evidence.parity.rows:
        if row.status == NOT_RUN:
            sentences.setdefault(row.deployment, _not_run(row.deployment, row.note))
    return (*sentences.values(), f"latency: not part of this digest, see {MEASUREMENTS_MANIFEST}")


def latency_not_measured(evidence: Evidence) -> tuple[str, ...]:
    """Return what was not measured of latency, a sentence each; `not_measured` names models that can't run at all."""
    latency = evidence.latency
    where = () if latency.on_target else (f"latency on the target: measured on {latency.ran_on}",)
    told = {model.name for model in evidence.deployed if not model.facts.runnable}
    missing = (
        row
        for row in latency.rows
        if row.ships and row.p50_ms is None and row.guest_instructions is None and row.deployment not in told
    )
    return (*where, *(f"{row.deployment}: latency: {row.note or 'not run on this host'}" for row in missing))


@dataclass(frozen=True, slots=True)
class _ModelWriter:
    """Copies models into the bundle, each with its answer to the reference image."""

    evidence: Evidence
    card: ModelCard
    image: Float32
    runtime: Runtime
    folder: Path
    scratch: Path
    added: dict[str, int] = field(default_factory=dict)
    """Bytes that a model file has more than the one that was converted, by deployment."""

    def write(self, model: Deployed) -> ModelEntry:
        """Return the manifest entry of a model, its files written."""
        facts = model.facts
        file = f"models/{model.name}{''.join(PurePath(facts.file).suffixes)}"
        self.added[model.name] = write_model(model.path, self.folder / file, self.card)
        reference = self._reference(model, self.folder / file) if facts.runnable else None
        return ModelEntry(
            deployment=model.name,
            options=model.deployment,
            file=file,
            runnable=facts.runnable,
            input=facts.input,
            output=facts.output,
            float_ops=facts.float_ops,
            other_float_ops=facts.other_float_ops,
            int8_tensors=facts.int8_tensors,
            note=facts.note,
            build_command=facts.build_command,
            tools=facts.tools,
            reference=reference,
            answers=copy_answers(self.evidence.answers_path, model.name, self.folder),
        )

    def _reference(self, model: Deployed, packed: Path) -> Reference:
        logits = self._logits(model, packed)
        if self.added[model.name] and not np.array_equal(logits, self._logits(model, model.path)):
            raise StageError(f"{model.name}: answers the reference image otherwise since it has metadata")
        step = logit_step(self.evidence.table, model.facts, logits)
        reference = Reference(file=f"reference/{model.name}.npy", logit_step=step)
        np.save(self.folder / reference.file, logits.astype(np.float32))
        return reference

    def _logits(self, model: Deployed, file: Path) -> Float32:
        classes = len(self.evidence.dataset.classes)
        logits = self.runtime.logits(model.deployment.backend, file, model.facts, self.image, self.scratch)
        if logits.shape != (classes,):
            raise StageError(
                f"{model.name}: gave logits of shape {list(logits.shape)} for one image, "
                f"the data set has {classes} classes",
                code="MKD-422",
            )
        return logits


def _write_reference_input(evidence: Evidence, options: PackOptions, folder: Path) -> tuple[ReferenceInput, Float32]:
    images = np.load(evidence.dataset_path / "test_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(evidence.dataset_path / "test_labels.npy", mmap_mode="r", allow_pickle=False)
    index = options.reference_image
    if index >= len(images):
        raise StageError(
            f"bundle.reference_image is {index}, the test split has {len(images)} images",
            hint=f"give 0 to {len(images) - 1}",
        )
    pixels = np.array(images[index])
    image = normalize(pixels[None], evidence.dataset.mean, evidence.dataset.std)
    np.save(folder / IMAGE, pixels)
    np.save(folder / INPUT, image)
    label = evidence.dataset.classes[int(labels[index])]
    return ReferenceInput(image=IMAGE, input=INPUT, test_index=index, label=label), image


def _network_answers(evidence: Evidence, folder: Path) -> dict[str, str]:
    copied = {name: copy_answers(evidence.answers_path, name, folder) for name in NETWORKS}
    return {name: path for name, path in copied.items() if path}


def _write_measurements(
    evidence: Evidence, manifest: Manifest, facts: Facts, provenance: Provenance, folder: Path
) -> None:
    """Write measurements/: the samples, the whole report, and the manifest that ties both to the bundle."""
    shutil.copyfile(evidence.latency_path, folder / LATENCY)
    latency, budget = evidence.latency, evidence.profile.budget
    measurements = Measurements(
        form="mobilekd.measurements/1",
        bundle=digest_text(manifest_text(manifest)),
        digest="",
        host=latency.host,
        ran_on=latency.ran_on,
        on_target=latency.on_target,
        measured=latency.measured,
        over_budget=over_budget(budget, facts, MEASURED),
        not_measured=(*latency_not_measured(evidence), *unknown_budgets(budget, facts, MEASURED)),
        files=(),
    )
    (folder / MEASURED_REPORT).write_text(measured_report(evidence, manifest, measurements, provenance), "utf-8")
    measurements = measurements.model_copy(update={"files": file_entries(folder, (LATENCY, MEASURED_REPORT))})
    (folder / MEASUREMENTS_MANIFEST).write_text(manifest_text(sealed(measurements)), "utf-8")


def _packed_files(folder: Path) -> tuple[FileEntry, ...]:
    return file_entries(folder, [path.as_posix() for path in files_below(folder)])


def _with_teacher(evidence: Evidence) -> list[dict[str, Any]]:
    """Return the parity rows with the teacher's top-1 beside each, so that a reader needs no second file."""
    return [{"top1_teacher": evidence.teacher.metrics.top1_test, **row} for row in evidence.parity_rows]


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _not_run(name: str, note: str) -> str:
    if note.startswith((NOT_RUN, "packed, not built")):
        return f"{name}: {note}"
    return f"{name}: {NOT_RUN}" + (f": {note}" if note else "")
