import numpy as np
import pytest
import torch
from torch import Tensor

from mobilekd.training.augmentation import Augmentation, cut_mix, mix_up, soft_targets
from mobilekd.training.data import DatasetFacts, Images
from mobilekd.training.views import Views

EVERYTHING = Augmentation(3, flip=True, cutout_pixels=5, randaugment=2, mixup=0.4, cutmix=1.0, label_smoothing=0.1)
EACH = [
    Augmentation(shift_pixels=3),
    Augmentation(flip=True),
    Augmentation(cutout_pixels=5),
    Augmentation(randaugment=3, randaugment_magnitude=20),
    Augmentation(mixup=0.4),
    Augmentation(cutmix=1.0),
    EVERYTHING,
]
ROWS = torch.arange(40)


def noise(count: int = 64, side: int = 12) -> Images:
    facts = DatasetFacts("toy", ("a", "b", "c"), (side,) * 2, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "none", {}, "", "")
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pixels.setflags(write=False)  # as in a memory map
    return Images(pixels, np.arange(count) % 3, facts)


def views(augmentation: Augmentation, images: Images | None = None, seed: int = 0) -> Views:
    return Views(images or noise(), augmentation, seed)


def plain() -> Tensor:
    return torch.from_numpy(noise().normalized(ROWS.numpy()))


def test_without_augmentation_a_batch_is_the_normalised_images() -> None:
    assert torch.equal(views(Augmentation()).batch(ROWS, 0).images, plain())


@pytest.mark.parametrize("augmentation", EACH, ids=str)
def test_an_image_alone_has_the_bits_that_it_has_in_a_batch(augmentation: Augmentation) -> None:
    together, source = views(augmentation).batch(ROWS, 2), views(augmentation)
    alone = [source.batch(row[None], 2) for row in ROWS]
    assert torch.equal(torch.cat([one.images for one in alone]), together.images)
    assert torch.equal(torch.cat([one.targets for one in alone]), together.targets)


@pytest.mark.parametrize("augmentation", EACH, ids=str)
def test_a_view_seen_again_after_another_has_the_same_pixels(augmentation: Augmentation) -> None:
    source = views(augmentation)
    first = source.batch(ROWS, 1).images
    source.batch(ROWS, 5)
    assert torch.equal(source.batch(ROWS, 1).images, first)


@pytest.mark.parametrize("augmentation", EACH, ids=str)
def test_another_view_has_other_pixels(augmentation: Augmentation) -> None:
    source = views(augmentation)
    assert not torch.equal(source.batch(ROWS, 0).images, source.batch(ROWS, 1).images)


@pytest.mark.parametrize("augmentation", EACH, ids=str)
def test_another_seed_has_other_pixels(augmentation: Augmentation) -> None:
    assert not torch.equal(views(augmentation).batch(ROWS, 0).images, views(augmentation, seed=1).batch(ROWS, 0).images)


@pytest.mark.parametrize("augmentation", EACH, ids=str)
def test_images_lie_channels_last(augmentation: Augmentation) -> None:
    assert views(augmentation).batch(ROWS, 0).images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augmentation", EACH, ids=str)
def test_targets_are_shares_that_sum_to_one(augmentation: Augmentation) -> None:
    targets = views(augmentation).batch(ROWS, 0).targets
    torch.testing.assert_close(targets.sum(1), torch.ones(len(ROWS)))
    assert (targets >= 0).all()


def test_flipped_images_are_mirrored_and_about_half() -> None:
    flipped = views(Augmentation(flip=True)).batch(ROWS, 0).images
    is_mirrored = (flipped == plain().flip(3)).flatten(1).all(1)
    is_same = (flipped == plain()).flatten(1).all(1)
    assert (is_mirrored ^ is_same).all()
    assert 10 <= int(is_mirrored.sum()) <= 30


def test_an_image_flipped_twice_is_itself() -> None:
    once = views(Augmentation(flip=True)).batch(ROWS, 0).images
    is_mirrored = (once != plain()).flatten(1).any(1)
    twice = torch.where(is_mirrored[:, None, None, None], once.flip(3), once)
    assert torch.equal(twice, plain())


def ramp(side: int = 12, count: int = 4900) -> Images:
    """Images whose pixels name their own row (red) and column (green)."""
    rows, columns = np.mgrid[0:side, 0:side].astype(np.uint8)
    one = np.stack([rows, columns, np.zeros_like(rows)], axis=-1)
    facts = DatasetFacts("ramp", ("a",), (side,) * 2, (0.0,) * 3, (1 / 255,) * 3, "none", {}, "", "")
    return Images(np.broadcast_to(one, (count, side, side, 3)).copy(), np.zeros(count, np.int64), facts)


def test_a_view_draws_each_shift_about_equally_often() -> None:
    moved = views(Augmentation(shift_pixels=3), ramp()).batch(torch.arange(4900), 0).images
    shifts = (moved[:, :2, 6, 6].round().long() - 6 + 3) @ torch.tensor([7, 1])
    counts = torch.bincount(shifts, minlength=49)
    chi_square = ((counts - 100) ** 2 / 100).sum().item()
    assert chi_square < 84  # 99.9 % of chi-square with 48 degrees of freedom


def test_a_shift_repeats_the_edge() -> None:
    moved = views(Augmentation(shift_pixels=3), ramp(count=50)).batch(torch.arange(50), 0).images.round()
    shift = moved[:, 0, 6, 6] - 6
    assert torch.equal(moved[:, 0, 0, 0], shift.clamp(min=0))
    assert torch.equal(moved[:, 0, 11, 0], (11 + shift).clamp(max=11))


def test_cutout_sets_at_most_its_square_to_the_mean() -> None:
    cut = views(Augmentation(cutout_pixels=4)).batch(ROWS, 0).images
    holes = (cut == 0).all(1).sum((1, 2))
    assert (int(holes.min()), int(holes.max())) >= (4, 16)
    assert torch.equal(torch.where(cut == 0, cut, plain()), cut)


def test_smoothed_targets_have_their_known_values() -> None:
    targets = views(Augmentation(label_smoothing=0.3)).batch(torch.tensor([1]), 0).targets
    torch.testing.assert_close(targets, torch.tensor([[0.1, 0.8, 0.1]]))


def test_a_mixup_share_of_one_leaves_the_image() -> None:
    assert torch.equal(mix_up(plain(), plain().flip(0), torch.ones(len(ROWS))), plain())


def test_mixup_blends_pixels_and_targets_alike() -> None:
    """A constant image of value 255 * label: its pixels then equal its target."""
    labels = np.arange(64) % 2
    facts = DatasetFacts("grey", ("a", "b"), (8, 8), (0.0,) * 3, (1.0,) * 3, "none", {}, "", "")
    pixels = np.broadcast_to((255 * labels).astype(np.uint8)[:, None, None, None], (64, 8, 8, 3)).copy()
    batch = views(Augmentation(mixup=1.0), Images(pixels, labels, facts)).batch(ROWS, 0)
    torch.testing.assert_close(batch.images.mean((1, 2, 3)), batch.targets[:, 1])


@pytest.mark.parametrize("augmentation", [Augmentation(cutmix=1.0), Augmentation(mixup=1.0, cutmix=1.0)], ids=str)
def test_the_share_of_a_pasted_target_is_the_area_it_covers(augmentation: Augmentation) -> None:
    labels = np.arange(64) % 2
    facts = DatasetFacts("grey", ("a", "b"), (8, 8), (0.0,) * 3, (1.0,) * 3, "none", {}, "", "")
    pixels = np.broadcast_to((255 * labels).astype(np.uint8)[:, None, None, None], (64, 8, 8, 3)).copy()
    batch = views(augmentation, Images(pixels, labels, facts)).batch(ROWS, 0)
    torch.testing.assert_close(batch.images.mean((1, 2, 3)), batch.targets[:, 1])


def test_cutmix_pastes_the_box_and_nothing_else() -> None:
    mixed = cut_mix(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4), torch.tensor([[1, 3, 0, 2]]))
    assert mixed[0, 0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_one_more_option_leaves_the_choices_of_the_others() -> None:
    mirrored = views(Augmentation(flip=True)).batch(ROWS, 3).images
    both = views(Augmentation(flip=True, label_smoothing=0.1, cutout_pixels=4)).batch(ROWS, 3).images
    assert torch.equal(torch.where(both == 0, both, mirrored), both)


def test_a_batch_says_what_it_was_asked_for() -> None:
    batch = views(Augmentation()).batch(torch.tensor([4, 2]), 7, 0.5)
    assert (batch.labels.tolist(), batch.rows.tolist(), batch.view, batch.progress) == ([1, 2], [4, 2], 7, 0.5)


def test_soft_targets_of_no_smoothing_are_one_hot() -> None:
    assert soft_targets(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
