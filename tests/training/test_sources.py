import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilekd.errors import ConfigError
from mobilekd.stage import Context, Inputs
from mobilekd.stages.data import Data, uneven_classes
from mobilekd.training import array_sources, image_folder, sources
from mobilekd.training.data import SPLITS, channel_moments, open_split, read_facts
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
        image_folder.find_images(folder)


def test_a_class_of_one_split_only_is_named(folder) -> None:
    write_image(folder / "train" / "cow" / "0.png", 0)
    with pytest.raises(ConfigError, match=r"cow \(only in train\)"):
        image_folder.find_images(folder)


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


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.int16])
def test_labels_of_an_npz_are_integers_of_any_type(tmp_path, kind) -> None:
    arrays = npz_arrays()
    np.savez(tmp_path / "data.npz", **arrays | {name: arrays[name].astype(kind) for name in ("y_train", "y_test")})
    shapes = array_sources.npz_shapes(tmp_path / "data.npz")
    assert sum(shapes.train_counts) == len(arrays["y_train"])
    assert array_sources.npz(tmp_path / "data.npz", 8).classes == shapes.classes


@pytest.mark.parametrize("broken", ["x_train", "y_test"])
def test_an_npz_without_an_array_names_it(tmp_path, broken: str) -> None:
    np.savez(tmp_path / "d.npz", **{name: value for name, value in npz_arrays().items() if name != broken})
    with pytest.raises(ConfigError, match=f"lacks '{broken}'"):
        array_sources.npz(tmp_path / "d.npz", 8)


def test_an_npz_of_floats_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", **{**npz_arrays(), "x_test": np.zeros((8, 8, 8, 3), np.float32)})
    with pytest.raises(ConfigError, match="x_test is float32"):
        array_sources.npz(tmp_path / "d.npz", 8)


LABELS = [
    ({"y_train": np.zeros(20, int), "y_test": np.zeros(8, int)}, "y_train has one class; two are needed"),
    ({"y_train": np.array([0, 1, 5, 0] * 5)}, "y_train has labels 0, 1, 5 for 6 classes"),
    ({"y_train": np.array([-1, 0, 1, 2] * 5)}, "y_train has labels -1, 0, 1, 2 for 3 classes"),
    ({"y_train": np.full(20, -1)}, "y_train has labels -1 for 0 classes"),
    (
        {"y_train": np.arange(20), "classes": np.array(["a", "b"])},
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more for 2",
    ),
    ({"y_test": np.arange(8)}, "y_test has labels 4, 5, 6, 7, which y_train has not"),
]


@pytest.mark.parametrize(("arrays", "told"), LABELS)
def test_labels_of_an_npz_that_are_not_those_of_its_classes_are_refused(tmp_path, arrays, told: str) -> None:
    np.savez(tmp_path / "d.npz", **{**npz_arrays(), **arrays})
    with pytest.raises(ConfigError, match=told) as caught:
        array_sources.npz(tmp_path / "d.npz", 8)
    assert caught.value.hint


def test_an_npz_in_the_place_of_a_folder_is_told_with_its_source(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", **npz_arrays())
    with pytest.raises(ConfigError, match=r"d\.npz' is a file, and data\.source = 'imagefolder'") as caught:
        Data(source="imagefolder", path=str(tmp_path / "d.npz")).sources(str)
    assert caught.value.hint == "for arrays in an .npz file: --set data.source=npz"


def test_a_file_that_is_no_npz_is_told(tmp_path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ConfigError, match="is no npz file"):
        array_sources.npz(tmp_path / "d.npz", 8)


def test_a_split_is_the_file_that_numpy_would_save(folder, tmp_path) -> None:
    out = run_data(Data(source="imagefolder", path=str(folder), image_size=8), tmp_path / "out")
    np.save(tmp_path / "again.npy", np.load(out / "train_images.npy"))
    assert (tmp_path / "again.npy").read_bytes() == (out / "train_images.npy").read_bytes()


def test_images_read_in_threads_keep_their_order(folder, tmp_path) -> None:
    out = run_data(Data(source="imagefolder", path=str(folder), image_size=8), tmp_path / "out")
    files = [folder / "val" / name / f"{index}.png" for name in ("cat", "dog") for index in range(4)]
    expected = np.stack([sources.square(Image.open(file), 8) for file in files])
    assert np.array_equal(open_split(out, "test").images, expected)


def test_images_after_an_unreadable_one_move_up(folder, tmp_path) -> None:
    (folder / "val" / "cat" / "1.png").write_bytes(b"no image")
    stage = Data(source="imagefolder", path=str(folder), image_size=8, skip_bad_images=True)
    test = open_split(run_data(stage, tmp_path / "out"), "test")
    expected = np.stack([sources.square(Image.open(folder / "val" / "cat" / f"{index}.png"), 8) for index in (0, 2, 3)])
    assert np.array_equal(test.images[:3], expected)
    assert test.labels.tolist() == [0] * 3 + [1] * 4


def test_an_image_is_turned_as_its_exif_orientation_says(folder, tmp_path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # white on top
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(pixels).save(folder / "val" / "cat" / "0.png", exif=exif)
    out = run_data(Data(source="imagefolder", path=str(folder), image_size=8), tmp_path / "out")
    assert np.array_equal(open_split(out, "test").images[0], pixels[::-1])


@pytest.fixture
def flat(tmp_path) -> Path:
    """A folder of classes alone: 20 cats, 5 dogs."""
    for name, count in (("cat", 20), ("dog", 5)):
        for index in range(count):
            write_image(tmp_path / "flat" / name / f"{index}.png", index)
    return tmp_path / "flat"


def test_a_folder_without_val_says_how_to_hold_out_a_part(flat) -> None:
    with pytest.raises(ConfigError, match="is not a folder") as caught:
        image_folder.find_images(flat)
    assert "data.test_share" in caught.value.hint


def test_a_test_share_is_taken_from_each_class(flat) -> None:
    found = image_folder.find_images(flat, test_share=0.2)
    assert [label for _, label in found.val] == [0] * 4 + [1]
    assert len(set(found.train) | set(found.val)) == len(found.train) + len(found.val) == 25


def test_the_seed_chooses_what_is_held_out(flat) -> None:
    first, again, other = (image_folder.find_images(flat, test_share=0.2, seed=seed).val for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_folder_without_val_is_read_with_a_test_share(flat, tmp_path) -> None:
    stage = Data(source="imagefolder", path=str(flat), image_size=8, test_share=0.2)
    facts = read_facts(run_data(stage, tmp_path / "out"))
    assert facts.splits == {"train": 18, "calibration": 2, "test": 5}


def test_a_test_share_beside_val_is_refused(folder) -> None:
    with pytest.raises(ConfigError, match=r"has val/, and data\.test_share is 0\.2"):
        image_folder.find_images(folder, test_share=0.2)


def test_a_class_of_one_image_cannot_be_split(flat) -> None:
    write_image(flat / "cow" / "0.png", 0)
    with pytest.raises(ConfigError, match="'cow' has one image"):
        image_folder.find_images(flat, test_share=0.2)


def test_the_facts_count_the_training_images_of_each_class(folder, tmp_path) -> None:
    out = run_data(Data(source="imagefolder", path=str(folder), image_size=8), tmp_path / "out")
    assert read_facts(out).class_counts == tuple(np.bincount(open_split(out, "train").labels))


class Heard(Quiet):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_uneven_classes_are_told_with_the_option_that_helps(flat, tmp_path) -> None:
    heard = Heard()
    stage = Data(source="imagefolder", path=str(flat), image_size=8, test_share=0.2)
    stage.run(Inputs(()), Context(tmp_path, tmp_path, tmp_path, heard))
    assert [line for line in heard.lines if "cat 1" in line and 'sampling = "balanced"' in line] == heard.lines


@pytest.mark.parametrize(("counts", "is_told"), [((30, 20), False), ((31, 20), True), ((5, 0), True)])
def test_classes_are_uneven_beyond_one_and_a_half_times(counts: tuple[int, int], is_told) -> None:
    assert bool(uneven_classes(("a", "b"), counts)) is is_told


def test_of_many_uneven_classes_the_extremes_are_named() -> None:
    line = uneven_classes([f"c{index}" for index in range(100)], range(1, 101))
    assert "(c99 100, c98 99, c97 98, c96 97, c95 96, ..., c4 5, c3 4, c2 3, c1 2, c0 1)" in line


def test_moments_are_those_of_the_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    mean, deviation = channel_moments(images)
    pixels = images.reshape(-1, 3) / 255.0
    np.testing.assert_allclose((mean, deviation), (pixels.mean(axis=0), pixels.std(axis=0)), rtol=1e-12)


def write_pickle(path: Path, content: dict[str, object]) -> str:
    """Write a file as CIFAR-100 has it and return its md5."""
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_cifar100_is_read_with_its_fine_labels(tmp_path, monkeypatch) -> None:
    from mobilekd.training.torchvision_ops import declare_torchvision_ops

    declare_torchvision_ops()
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    content = {"data": pixels, "fine_labels": [0, 1, 2, 1], "coarse_labels": [0, 0, 1, 0]}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", write_pickle(folder / "train", content)]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", write_pickle(folder / "test", content)]])
    names = {"fine_label_names": ["apple", "bear", "cloud"], "coarse_label_names": ["x", "y"]}
    meta = {"filename": "meta", "key": "fine_label_names", "md5": write_pickle(folder / "meta", names)}
    monkeypatch.setattr(CIFAR100, "meta", meta)
    source = array_sources.cifar("cifar100", tmp_path, 32, download=False)
    assert source.classes == ("apple", "bear", "cloud")
    assert source.train_labels.tolist() == [0, 1, 2, 1]
    assert np.array_equal(source.test_images, pixels.reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_a_cifar_npz_is_found_in_its_folder(tmp_path, kind: array_sources.Cifar) -> None:
    np.savez(tmp_path / f"{kind}.npz", **npz_arrays())
    assert len(array_sources.cifar(kind, tmp_path, 8, download=False).train_labels) == 20


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_a_cifar_that_is_not_there_is_not_downloaded(tmp_path, kind: array_sources.Cifar) -> None:
    with pytest.raises(ConfigError, match=rf"has neither {kind}\.npz nor cifar-10") as caught:
        array_sources.cifar(kind, tmp_path, 32, download=False)
    assert "data.download = true" in caught.value.hint


def test_a_damaged_cifar_folder_is_told(tmp_path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(ConfigError, match="CIFAR-100 could not be read or downloaded"):
        array_sources.cifar("cifar100", tmp_path, 32, download=False)
