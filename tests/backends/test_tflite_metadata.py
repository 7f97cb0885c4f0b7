import io
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilekd import toolchain
from mobilekd.backends._tflite_graph import read_model, view
from mobilekd.backends._tflite_metadata import METADATA, ModelCard, metadata, with_metadata
from mobilekd.backends.tflite import Tflite
from mobilekd.errors import MissingToolError, StageError
from mobilekd.profile import Deployment
from tests.backends.tiny import CLASSES, SIZE, images, session_logits, write_tiny
from tests.device.models import Silent

CARD = ModelCard(
    name="tiny classifier",
    description="Image to 10 classes.",
    licence="Apache-2.0",
    labels=("goat", "sheep", "Ärger 漢", *map(str, range(3, CLASSES))),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    height=SIZE,
    width=SIZE,
)
IOS = pytest.mark.parametrize("io_type", ["float32", "int8"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny network, by the type of its input and output."""
    found = {}
    for name in ("float32", "int8"):
        request = write_tiny(tmp_path_factory.mktemp(name)).for_(Deployment(backend="tflite", io=name))  # type: ignore[arg-type]
        found[name] = request.out / Tflite().convert(request).file
    return found


def packed(file: Path, folder: Path) -> Path:
    made = folder / "packed.tflite"
    made.write_bytes(with_metadata(file.read_bytes(), CARD))
    return made


@IOS
@pytest.mark.parametrize("kernels", Tflite.kernels)
def test_logits_with_metadata_are_those_without(
    files: dict[str, Path], tmp_path: Path, io_type: str, kernels: str
) -> None:
    both = [files[io_type], packed(files[io_type], tmp_path)]
    batch = images(16)
    before, after = (
        session_logits(Tflite().open(one, Tflite().describe(one), kernels=kernels, threads=1), batch) for one in both
    )
    assert np.array_equal(before, after)


@IOS
def test_every_weight_is_in_the_file_unchanged(files: dict[str, Path], tmp_path: Path, io_type: str) -> None:
    before, after = (
        [None if buffer.data is None else bytes(buffer.data) for buffer in read_model(one).buffers]
        for one in (files[io_type], packed(files[io_type], tmp_path))
    )
    assert after[:-1] == before
    assert after[-1] == metadata(CARD)


@IOS
def test_a_backend_says_the_same_of_both_files(files: dict[str, Path], tmp_path: Path, io_type: str) -> None:
    made = packed(files[io_type], tmp_path)
    assert replace(Tflite().describe(made), file="") == replace(Tflite().describe(files[io_type]), file="")
    assert view(read_model(made)).layout == view(read_model(files[io_type])).layout


def test_equal_models_and_cards_give_equal_bytes(files: dict[str, Path]) -> None:
    content = files["float32"].read_bytes()
    assert with_metadata(content, CARD) == with_metadata(content, CARD)


def test_metadata_carries_its_own_identifier() -> None:
    assert metadata(CARD)[4:8] == b"M001"


def test_labels_are_stored_uncompressed_behind_the_model(files: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(packed(files["int8"], tmp_path).read_bytes())) as archive:
        entry = archive.getinfo("labels.txt")
        assert archive.read(entry).decode().splitlines() == list(CARD.labels)
        assert (entry.compress_type, entry.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))


def test_a_model_with_metadata_gets_no_second_one(files: dict[str, Path]) -> None:
    once = with_metadata(files["float32"].read_bytes(), CARD)
    with pytest.raises(StageError, match=f"already has {METADATA}"):
        with_metadata(once, CARD)


class Vector:
    """Reads a flatbuffer by slots alone, with nothing of what wrote it."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    @classmethod
    def root(cls, data: bytes) -> "Vector":
        return cls(data, int.from_bytes(data[:4], "little"))

    def _place(self, slot: int) -> int:
        table = self.at - int.from_bytes(self.data[self.at : self.at + 4], "little", signed=True)
        return self.at + int.from_bytes(self.data[table + 4 + 2 * slot : table + 6 + 2 * slot], "little")

    def _follow(self, place: int) -> int:
        return place + int.from_bytes(self.data[place : place + 4], "little")

    def table(self, slot: int) -> "Vector":
        return Vector(self.data, self._follow(self._place(slot)))

    def item(self, slot: int, index: int) -> "Vector":
        start = self._follow(self._place(slot))
        return Vector(self.data, self._follow(start + 4 + 4 * index))

    def _bytes(self, slot: int, item_bytes: int) -> bytes:
        start = self._follow(self._place(slot))
        count = int.from_bytes(self.data[start : start + 4], "little")
        return self.data[start + 4 : start + 4 + count * item_bytes]

    def text(self, slot: int) -> str:
        return self._bytes(slot, 1).decode()

    def floats(self, slot: int) -> list[float]:
        return [float(one) for one in np.frombuffer(self._bytes(slot, 4), "<f4")]

    def byte(self, slot: int) -> int:
        return self.data[self._place(slot)]


def test_a_reader_of_slots_finds_normalisation_of_pixels_from_0_to_255() -> None:
    image = Vector.root(metadata(CARD)).item(3, 0).item(2, 0)
    unit = image.item(4, 0)
    assert unit.byte(0) == 1  # ProcessUnitOptions.NormalizationOptions
    assert unit.table(1).floats(0) == pytest.approx([123.675, 116.28, 103.53], rel=1e-7)
    assert unit.table(1).floats(1) == pytest.approx([58.395, 57.12, 57.375], rel=1e-7)


def test_a_reader_of_slots_finds_the_labels_file_and_the_parser_s_version() -> None:
    root = Vector.root(metadata(CARD))
    file = root.item(3, 0).item(3, 0).item(6, 0)
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)  # AssociatedFileType.TENSOR_AXIS_LABELS
    assert (root.text(0), root.text(7)) == ("tiny classifier", "1.0.0")


DISPLAY = """
import json, sys
from tflite_support import metadata
shown = metadata.MetadataDisplayer.with_model_file(sys.argv[1])
labels = shown.get_associated_file_buffer("labels.txt").decode()
print(json.dumps({"metadata": json.loads(shown.get_metadata_json()), "labels": labels}))
"""


@pytest.mark.slow
@IOS
def test_tflite_support_reads_labels_normalisation_and_range(
    files: dict[str, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, io_type: str
) -> None:
    try:
        python = toolchain.install("tflite-support", tmp_path_factory.getbasetemp() / "toolchains", Silent())
    except MissingToolError as cause:
        pytest.skip(f"{cause.message} ({cause.hint})")
    made = packed(files[io_type], tmp_path)
    env = toolchain.isolated_env(python)
    done = subprocess.run([python, "-c", DISPLAY, made], env=env, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    image = shown["metadata"]["subgraph_metadata"][0]["input_tensor_metadata"][0]
    assert shown["labels"].splitlines() == list(CARD.labels)
    assert image["content"]["content_properties"]["color_space"] == "RGB"
    assert image["process_units"][0]["options"]["mean"] == pytest.approx([123.675, 116.28, 103.53], rel=1e-6)
    assert image["process_units"][0]["options"]["std"] == pytest.approx([58.395, 57.12, 57.375], rel=1e-6)
    assert image["stats"]["min"] == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rel=1e-5)
    assert image["stats"]["max"] == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rel=1e-5)
