from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilekd.errors import ConfigError
from mobilekd.stage import Context, Inputs
from mobilekd.stages.data import Data
from mobilekd.training import array_sources, sources
from mobilekd.training.data import SPLITS, open_split, read_facts
from tests.training.toy import Quiet


def write_image(path: Path, seed: int, size: tuple[int, int] = (20, 14)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            for index in range(count):
                write_image(tmp_path / split / name / f"{index}.png", index)
    return tmp_path


def run_data(stage: Data, out: Path) -> Path:
    out.mkdir()
    stage.run(Inputs(()), Context(out, out, out, Quiet()))
    return out


def test_digits_split_is_fixed_and_disjoint(tmp_path) -> None:
    out = run_data(Data(image_size=16), tmp_path / "a")
    again = run_data(Data(image_size=16), tmp_path / "b")
    splits = {split: open_split(out, split) for split in SPLITS}
    assert {split: len(images) for split, images in splits.items()} == {"train": 1294, "calibration": 143, "test": 360}
    assert all(np.array_equal(open_split(again, split).images, images.images) for split, images in splits.items())


def test_an_image_folder_gives_square_images_and_its_classes(folder, tmp_path) -> None:
    out = run_data(Data(source="imagefolder", path=str(folder), image_size=8), tmp_path / "out")
    facts = read_facts(out)
    assert facts.classes == ("cat", "dog")
    assert open_split(out, "test").images.shape == (8, 8, 8, 3)
    assert open_split(out, "test").labels.tolist() == [0] * 4 + [1] * 4


def test_resize_keeps_the_centre(tmp_path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert (sources.square(Image.fromarray(wide), 8)[:, 1:-1] == 255).all()


def test_an_unreadable_image_is_named_and_can_be_skipped(folder, tmp_path) -> None:
    (folder / "train" / "dog" / "3.png").write_bytes(b"no image")
    stage = Data(source="imagefolder", path=str(folder), image_size=8)
    with pytest.raises(ConfigError, match=r"1 unreadable image\(s\): .*dog/3\.png") as caught:
        run_data(stage, tmp_path / "out")
    assert "--skip-bad-images" in caught.value.hint
    out = run_data(stage.model_copy(update={"skip_bad_images": True}), tmp_path / "skipped")
    assert read_facts(out).bad_images == ("train/dog/3.png",)


def test_a_cut_off_image_is_unreadable(folder, tmp_path) -> None:
    path = folder / "train" / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"dog/3\.png"):
        run_data(Data(source="imagefolder", path=str(folder), image_size=8), tmp_path / "out")


def test_an_empty_class_is_named(folder) -> None:
    for path in (folder / "val" / "dog").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="class 'dog' is empty"):
        sources.find_images(folder)


def test_a_class_of_one_split_only_is_named(folder) -> None:
    write_image(folder / "train" / "cow" / "0.png", 0)
    with pytest.raises(ConfigError, match=r"cow \(only in train\)"):
        sources.find_images(folder)


def test_a_missing_folder_is_told_before_anything_runs(tmp_path) -> None:
    stage = Data(source="imagefolder", path=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"nowhere/train' is not a folder"):
        stage.sources(str)


def test_a_source_that_reads_a_path_needs_one() -> None:
    with pytest.raises(ConfigError, match=r"data\.path is empty"):
        Data(source="npz").sources(str)


def npz_arrays(count: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count) % 4
    return {"x_train": images, "y_train": labels, "x_test": images[:8], "y_test": labels[:8]}


def test_an_npz_is_read_with_its_classes(tmp_path) -> None:
    np.savez(tmp_path / "cifar10.npz", **npz_arrays(), classes=np.array(["a", "b", "c", "d"]))
    source = array_sources.npz(tmp_path, 8)
    assert source.classes == ("a", "b", "c", "d")
    assert np.array_equal(source.train_images, npz_arrays()["x_train"])


@pytest.mark.parametrize("broken", ["x_train", "y_test"])
def test_an_npz_without_an_array_names_it(tmp_path, broken: str) -> None:
    np.savez(tmp_path / "d.npz", **{name: value for name, value in npz_arrays().items() if name != broken})
    with pytest.raises(ConfigError, match=f"lacks '{broken}'"):
        array_sources.npz(tmp_path / "d.npz", 8)


def test_an_npz_of_floats_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", **{**npz_arrays(), "x_test": np.zeros((8, 8, 8, 3), np.float32)})
    with pytest.raises(ConfigError, match="x_test is float32"):
        array_sources.npz(tmp_path / "d.npz", 8)


def test_a_file_that_is_no_npz_is_told(tmp_path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ConfigError, match="is no npz file"):
        array_sources.npz(tmp_path / "d.npz", 8)
