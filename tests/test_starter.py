import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilekd import cli, config
from mobilekd.errors import ConfigError
from mobilekd.first_look import FirstLook, Machine, look_at, look_at_machine
from mobilekd.first_options import choose
from mobilekd.show_first_look import warnings
from mobilekd.starter import write_pipeline

CPU = Machine(cores=2, memory_bytes=8 << 30, free_disk_bytes=50 << 30, gpu="")


def fill(folder: Path, count: int, side: int = 40, mode: str = "RGB") -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(str(folder)))
    for number in range(count):
        pixels = rng.integers(0, 256, (side + number, side + 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, one twice as large as the other, no val/."""
    fill(tmp_path / "My photos!/cat", 12)
    fill(tmp_path / "My photos!/dog", 6)
    return tmp_path / "My photos!"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for number, name in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        fill(tmp_path / "split" / name, 3, side=40 + number)
    return tmp_path / "split"


def looked(
    counts: tuple[int, ...] = (1000, 1000), classes: tuple[str, ...] = ("cat", "dog"), side: int = 500
) -> FirstLook:
    return FirstLook(
        path=Path("photos"), source="imagefolder", layout="classes", classes=classes, train_counts=counts,
        test_counts=(), opened=sum(counts), decoded=256, unreadable=(), sides=(side, side, side), modes={"RGB": 9},
    )  # fmt: skip


def written(look: FirstLook, tmp_path: Path) -> dict:
    write_pipeline(look, CPU, choose(look, CPU), tmp_path / "new.toml")
    return tomllib.loads((tmp_path / "new.toml").read_text())


def test_a_look_counts_the_images_of_each_class(photos: Path) -> None:
    look = look_at(photos)
    assert (look.classes, look.train_counts, look.test_counts) == (("cat", "dog"), (12, 6), ())


def test_a_look_tells_the_splits_apart(split: Path) -> None:
    look = look_at(split)
    assert (look.train_counts, look.test_counts, look.layout) == ((3, 3), (3, 3), "train and val")


def test_a_look_has_the_least_median_and_greatest_shorter_side(photos: Path) -> None:
    assert look_at(photos).sides == (40, 44, 48)


def test_a_look_names_what_cannot_be_read(photos: Path) -> None:
    (photos / "dog/0.png").write_bytes((photos / "dog/0.png").read_bytes()[:900])  # a header, and half of its pixels
    assert look_at(photos).unreadable == ("dog/0.png",)


def test_a_look_finds_an_image_that_is_in_train_and_in_val(split: Path) -> None:
    (split / "val/cat/0.png").write_bytes((split / "train/cat/0.png").read_bytes())
    assert look_at(split).same_bytes == 1
    assert "1 with the same bytes" in next(iter(warnings(look_at(split))))


def test_images_of_one_name_and_other_bytes_are_no_duplicates(split: Path) -> None:
    look = look_at(split)
    assert (len(look.in_both), look.same_bytes) == (6, 0)


def test_a_look_knows_grey_images(tmp_path: Path) -> None:
    fill(tmp_path / "x/a", 3, mode="L")
    fill(tmp_path / "x/b", 3, mode="L")
    assert look_at(tmp_path / "x").modes == {"L": 6}


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    labels = np.array([0, 0, 0, 1])
    images = np.zeros((4, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return tmp_path / "set.npz"


def test_a_look_at_an_npz_reads_its_labels_and_the_size_of_its_images(npz: Path) -> None:
    look = look_at(npz)
    assert (look.source, look.train_counts, look.test_counts, look.sides) == ("npz", (3, 1), (3, 1), (32, 32, 32))


def test_a_pipeline_for_an_npz_loads(npz: Path, tmp_path: Path) -> None:
    assert written(look_at(npz), tmp_path)["data"]["source"] == "npz"
    assert config.load_pipeline(str(tmp_path / "new.toml"), []).name == "set"


def test_the_machine_has_memory_cores_and_disk(tmp_path: Path) -> None:
    machine = look_at_machine(tmp_path / "not/yet/there")
    assert min(machine.cores, machine.memory_bytes, machine.free_disk_bytes) > 0


def test_the_pipeline_points_at_the_images_and_has_their_name(photos: Path, tmp_path: Path) -> None:
    document = written(look_at(photos), tmp_path)
    assert (document["data"]["path"], document["name"]) == (str(photos), "My-photos")


def test_a_test_share_is_set_where_there_is_no_val(photos: Path, tmp_path: Path) -> None:
    assert written(look_at(photos), tmp_path)["data"]["test_share"] == 0.2


def test_no_test_share_is_set_where_there_is_a_val(split: Path, tmp_path: Path) -> None:
    assert "test_share" not in written(look_at(split), tmp_path)["data"]


@pytest.mark.parametrize(("counts", "sampling"), [((300, 200), "shuffled"), ((301, 200), "balanced")])
def test_classes_are_balanced_above_one_and_a_half_to_one(counts: tuple[int, ...], sampling: str) -> None:
    assert choose(looked(counts), CPU).sampling.value == sampling


@pytest.mark.parametrize(("side", "gpu", "size"), [(500, "", 128), (500, "H100", 224), (100, "", 96), (20, "", 32)])
def test_images_are_as_large_as_half_of_them_and_the_machine_allow(side: int, gpu: str, size: int) -> None:
    assert choose(looked(side=side), replace(CPU, gpu=gpu)).image_size.value == size


@pytest.mark.parametrize(
    ("count", "teacher"), [(200, "timm:resnet18"), (5000, "timm:resnet34"), (50_000, "timm:resnet50")]
)
def test_more_images_get_larger_networks(count: int, teacher: str) -> None:
    assert choose(looked((count, count)), CPU).networks.teacher == teacher


def test_a_small_memory_gets_a_small_batch() -> None:
    assert choose(looked((9999, 9999)), replace(CPU, memory_bytes=3 << 30)).batch_size.value == 32


def test_few_images_get_small_batches_and_many_epochs() -> None:
    options = choose(looked((60, 60)), CPU)
    assert (options.batch_size.value, options.teacher_epochs.value) == (8, 60)


@pytest.mark.parametrize(
    ("classes", "flip"), [(("0", "1"), False), (("turn left", "turn right"), False), (("cat", "dog"), True)]
)
def test_classes_with_a_side_are_not_mirrored(classes: tuple[str, ...], *, flip: bool) -> None:
    assert choose(looked(classes=classes), CPU).flip.value is flip


def test_a_newline_in_a_name_stays_inside_its_comment(tmp_path: Path) -> None:
    look = replace(looked(), unreadable=('cat/\n[data]\nsource = "digits"\n.png',), path=tmp_path / 'a"\n\u007f')
    assert written(look, tmp_path)["data"]["source"] == "imagefolder"


def test_init_writes_a_file_that_plan_takes(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "new.toml")
    assert cli.run(["init", str(photos), "--out", out]) == 0
    told = capfd.readouterr()
    assert told.out == f"{out}\n"
    assert f"next: mobilekd plan --pipeline {out}" in told.err
    assert cli.run(["plan", "--pipeline", out]) == 0


def test_init_tells_what_it_saw_as_json(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["init", str(photos), "--out", str(tmp_path / "new.toml"), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "mobilekd.first_look/1"
    assert document["images"]["train_counts"] == {"cat": 12, "dog": 6}
    assert document["options"]["sampling"]["value"] == "balanced"


def nothing(folder: Path) -> Path:
    folder.mkdir()
    return folder


def one_class(folder: Path) -> Path:
    fill(folder / "cat", 3)
    return folder


def a_file(folder: Path) -> Path:
    folder.write_text("no folder")
    return folder


def loose_images(folder: Path) -> Path:
    fill(folder, 3)
    return folder


def all_broken(folder: Path) -> Path:
    (folder / "cat").mkdir(parents=True)
    (folder / "dog").mkdir()
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        (folder / name).write_bytes(b"no image")
    return folder


def an_empty_class(folder: Path) -> Path:
    fill(folder / "cat", 3)
    (folder / "dog").mkdir()
    return folder


def one_image(folder: Path) -> Path:
    fill(folder / "cat", 3)
    fill(folder / "dog", 1)
    return folder


def a_class_without_val(folder: Path) -> Path:
    fill(folder / "train/cat", 2)
    fill(folder / "train/dog", 2)
    fill(folder / "train/cow", 2)
    fill(folder / "val/cat", 2)
    fill(folder / "val/dog", 2)
    return folder


def val_alone(folder: Path) -> Path:
    fill(folder / "val/cat", 2)
    return folder


def a_broken_npz(folder: Path) -> Path:
    folder.mkdir()
    (folder / "set.npz").write_bytes(b"PK no zip")
    return folder / "set.npz"


def an_npz_without_labels(folder: Path) -> Path:
    folder.mkdir()
    np.savez(folder / "set.npz", x_train=np.zeros((2, 8, 8, 3), np.uint8))
    return folder / "set.npz"


def an_npz_of_floats(folder: Path) -> Path:
    folder.mkdir()
    images, labels = np.zeros((2, 8, 8, 3)), np.array([0, 1])
    np.savez(folder / "set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return folder / "set.npz"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "has no folder of a class"),
        (one_class, r"1 class folder\(s\); two are needed"),
        (a_file, "is a file; a folder of images"),
        (loose_images, r"no folder of a class; 3 image\(s\) lie in it directly"),
        (all_broken, "none of 4 image files can be read"),
        (an_empty_class, "class 'dog' is empty"),
        (one_image, "class 'dog' has one image"),
        (a_class_without_val, r"other classes: cow \(only in train\)"),
        (val_alone, "is not a folder"),
        (lambda folder: folder / "nowhere", "is not a folder|no such"),
        (a_broken_npz, "is no npz file"),
        (an_npz_without_labels, "lacks 'y_train'"),
        (an_npz_of_floats, "x_train is float64"),
    ],
)
def test_what_is_no_set_of_images_is_refused_and_nothing_is_written(make, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        written(look_at(make(tmp_path / "images")), tmp_path)
    assert not (tmp_path / "new.toml").exists()


@pytest.fixture
def nobody() -> Iterator[None]:
    """Let the test run without root's leave to read everything."""
    before = os.geteuid()
    os.seteuid(before or 65534)
    yield
    os.seteuid(before)


def test_a_folder_that_may_not_be_read_is_named(photos: Path, nobody: None) -> None:
    with pytest.raises(ConfigError, match="can't be read: Permission denied"):
        look_at(locked(photos))


def locked(folder: Path) -> Path:
    before = os.geteuid()
    os.seteuid(os.getuid())
    (folder / "cat").chmod(0)
    os.seteuid(before)
    return folder


def test_init_keeps_a_file_that_is_there(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text("mine")
    with pytest.raises(ConfigError, match="already there"):
        written(look_at(photos), tmp_path)
    assert (tmp_path / "new.toml").read_text() == "mine"


def test_a_place_that_is_not_there_is_refused(photos: Path, tmp_path: Path) -> None:
    look = look_at(photos)
    with pytest.raises(ConfigError, match="can't be written: No such file"):
        write_pipeline(look, CPU, choose(look, CPU), tmp_path / "gone/new.toml")
