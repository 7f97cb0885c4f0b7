"""An .mlpackage, which is a folder, as one file: a zip without compression that macOS unpacks back into the folder.

coremltools gives each part a random identifier and writes the date into the model; both are replaced here, so that
equal models are equal bytes.
"""

import json
import uuid
import zipfile
from pathlib import Path

_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE_0644 = 0o100644 << 16
_UNIX = 3
_DATED = "com.github.apple.coremltools.conversion_date"
_DATA = "com.apple.CoreML"
_MODEL, _WEIGHTS = f"{_DATA}/model.mlmodel", f"{_DATA}/weights"
_NAMESPACE = uuid.UUID("6f1d6d6b-7a54-5a1c-9d0b-8d1a3c9b7e21")


def pack(folder: Path, out: Path) -> None:
    """Write what of a package Core ML reads: the model, its weights and the manifest; equal models give equal bytes.

    Args:
        folder: What coremltools saved.
        out: NAME.mlpackage.zip; unpacks to NAME.mlpackage.
    """
    root = out.name.removesuffix(".zip")
    parts = {f"{root}/Manifest.json": _manifest(), f"{root}/Data/{_MODEL}": _undated(folder / "Data" / _MODEL)}
    for path in sorted((folder / "Data" / _WEIGHTS).glob("*")):
        parts[f"{root}/Data/{_WEIGHTS}/{path.name}"] = path.read_bytes()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(parts.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = _UNIX, _PLAIN_FILE_0644
            archive.writestr(entry, content)


def unpack(file: Path, folder: Path) -> Path:
    """Return the package folder that a file of `pack` holds, written into a folder."""
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder / file.name.removesuffix(".zip")


def _undated(model: Path) -> bytes:
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model.FromString(model.read_bytes())
    spec.description.metadata.userDefined.pop(_DATED, None)
    content: bytes = spec.SerializeToString(deterministic=True)
    return content


def _manifest() -> bytes:
    """Return the manifest; what coremltools draws as random numbers is made from the parts' paths."""
    model, weights = (str(uuid.uuid5(_NAMESPACE, path)) for path in (_MODEL, _WEIGHTS))
    items = {
        model: {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": _MODEL,
        },
        weights: {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Weights",
            "name": "weights",
            "path": _WEIGHTS,
        },
    }
    document = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": model}
    return (json.dumps(document, indent=4, sort_keys=True) + "\n").encode()
