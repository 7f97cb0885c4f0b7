"""What goes into the model files themselves, so that an app can read it from the file alone."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mobilekd.backends._tflite_metadata import ModelCard, is_tflite, with_metadata
from mobilekd.release.evidence import DatasetCard, Evidence


def model_card(dataset: DatasetCard, labels: tuple[str, ...], licence: str) -> ModelCard:
    """Return what a model file says of itself."""
    return ModelCard(
        name=f"{dataset.name} classifier",
        description=f"Image to {len(labels)} classes. Input: {dataset.resize}; then (pixel / 255 - mean) / std.",
        licence=licence,
        labels=labels,
        mean=dataset.mean,
        std=dataset.std,
        height=dataset.image_size[0],
        width=dataset.image_size[1],
    )


def write_model(source: Path, target: Path, card: ModelCard) -> int:
    """Write a model of the bundle: a TFLite file with its card inside, any other as it is; return the bytes added.

    Raises:
        StageError: The model with its card would be another one.
    """
    with source.open("rb") as stream:
        if not is_tflite(stream.read(8)):
            shutil.copyfile(source, target)
            return 0
    content = source.read_bytes()
    made = with_metadata(content, card)
    target.write_bytes(made)
    return len(made) - len(content)


def with_sizes(evidence: Evidence, added: Mapping[str, int]) -> Evidence:
    """Return the evidence with the sizes of the models as they ship.

    Args:
        evidence: With the sizes of the files that were converted.
        added: Bytes that the card added, by deployment.
    """
    rows = tuple(
        {**row, "bytes": row["bytes"] + added.get(row["deployment"], 0)} if row.get("bytes") else row
        for row in evidence.parity_rows
    )
    typed = tuple(
        row.model_copy(update={"bytes": row.bytes + added.get(row.deployment, 0)}) if row.bytes else row
        for row in evidence.parity.rows
    )
    return replace(evidence, parity=evidence.parity.model_copy(update={"rows": typed}), parity_rows=rows)
