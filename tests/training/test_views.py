import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilekd.training.augmentation import Augmentation, draw
from mobilekd.training.data import DatasetFacts, Images
from mobilekd.training.randaugment import OPERATIONS, apply
from mobilekd.training.views import Views

N, SIDE = 24, 12
RNG = np.random.default_rng(0)
FACTS = DatasetFacts("toy", ("a", "b", "c"), (SIDE, SIDE), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), "none", {}, "", "")
IMAGES = Images(RNG.integers(0, 256, (N, SIDE, SIDE, 3)).astype(np.uint8), np.arange(N) % 3, FACTS)
ROWS = torch.arange(N)
EVERYTHING = Augmentation(3, flip=True, randaugment=2, cutout_pixels=4, mixup=0.4, cutmix=1.0, label_smoothing=0.1)
ALONE = [
    Augmentation(shift_pixels=3),
    Augmentation(flip=True),
    Augmentation(randaugment=2, randaugment_magnitude=15),
    Augmentation(cutout_pixels=5),
    Augmentation(mixup=0.5),
    Augmentation(cutmix=1.0),
    EVERYTHING,
]


@pytest.mark.parametrize("augmentation", ALONE)
def test_an_image_is_alike_in_any_batch(augmentation: Augmentation) -> None:
    views = Views(IMAGES, augmentation, seed=1)
    together = views.batch(ROWS, 2)
    singly = [views.batch(ROWS[place : place + 1], 2) for place in range(N)]
    assert torch.equal(together.images, torch.cat([one.images for one in singly]))
    assert torch.equal(together.targets, torch.cat([one.targets for one in singly]))


@pytest.mark.parametrize("augmentation", ALONE)
def test_a_view_is_alike_when_asked_again_and_another_view_is_not(augmentation: Augmentation) -> None:
    first = Views(IMAGES, augmentation, seed=1).batch(ROWS, 0)
    views = Views(IMAGES, augmentation, seed=1)
    assert not torch.equal(views.batch(ROWS, 1).images, first.images)
    assert torch.equal(views.batch(ROWS, 0).images, first.images)


def test_without_augmentation_pixels_are_those_of_evaluation() -> None:
    batch = Views(IMAGES, Augmentation(), seed=0).batch(ROWS, 0)
    assert np.array_equal(batch.images.numpy(), IMAGES.normalized(ROWS.numpy()))


def test_a_flipped_image_is_the_mirror_of_the_other() -> None:
    batch = Views(IMAGES, Augmentation(flip=True), seed=0).batch(ROWS, 0)
    plain = torch.from_numpy(IMAGES.normalized(ROWS.numpy()))
    is_flipped = draw(N, Augmentation(flip=True), 0, 0).is_flipped
    assert 0 < is_flipped.sum() < N
    assert torch.equal(batch.images, torch.where(is_flipped[:, None, None, None], plain.flip(3), plain))


def test_every_shift_is_about_as_likely() -> None:
    shifts = draw(20_000, Augmentation(shift_pixels=2), 0, 0).shifts
    counts = torch.bincount((shifts + 2).flatten())
    assert len(counts) == 5
    assert counts.min() > 0.95 * 8_000


def test_a_shift_repeats_the_edge() -> None:
    batch = Views(IMAGES, Augmentation(shift_pixels=3), seed=0).batch(ROWS, 0)
    down = draw(N, Augmentation(shift_pixels=3), 0, 0).shifts[:, 0]
    moved_up = batch.images[down == 3]
    assert len(moved_up)
    assert torch.equal(moved_up[:, :, -1], moved_up[:, :, -4])


@settings(max_examples=30)
@given(mixup=st.floats(0, 2), cutmix=st.floats(0, 2), smoothing=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_targets_sum_to_one(mixup: float, cutmix: float, smoothing: float, seed: int) -> None:
    augmentation = Augmentation(mixup=mixup, cutmix=cutmix, label_smoothing=smoothing)
    targets = Views(IMAGES, augmentation, seed).batch(ROWS, 0).targets
    torch.testing.assert_close(targets.sum(1), torch.ones(N))
    assert (targets >= 0).all()


def test_mixup_gives_pixels_and_targets_the_same_shares() -> None:
    augmentation = Augmentation(mixup=1.0)
    batch, draws = Views(IMAGES, augmentation, 0).batch(ROWS, 0), draw(N, augmentation, 0, 0)
    plain = Views(IMAGES, Augmentation(), 0).batch(ROWS, 0)
    share = draws.shares[:, None]
    torch.testing.assert_close(batch.targets, share * plain.targets + (1 - share) * plain.targets[draws.partners])
    wanted = share[..., None, None] * plain.images + (1 - share[..., None, None]) * plain.images[draws.partners]
    torch.testing.assert_close(batch.images, wanted)


def test_cutmix_gives_the_label_the_share_of_pixels_that_are_left() -> None:
    augmentation = Augmentation(cutmix=1.0)
    batch, draws = Views(IMAGES, augmentation, 0).batch(ROWS, 0), draw(N, augmentation, 0, 0)
    plain = Views(IMAGES, Augmentation(), 0).batch(ROWS, 0)
    left = (batch.images == plain.images).all(dim=1).float().mean(dim=(1, 2))
    share = left[:, None]
    wanted = share * plain.targets + (1 - share) * plain.targets[draws.partners]
    torch.testing.assert_close(batch.targets, wanted)


def test_cutout_takes_at_most_its_square() -> None:
    plain = Views(IMAGES, Augmentation(), 0).batch(ROWS, 0)
    cut = Views(IMAGES, Augmentation(cutout_pixels=4), 0).batch(ROWS, 0)
    changed = (cut.images != plain.images).any(dim=1).sum(dim=(1, 2))
    assert 4 <= changed.min() <= changed.max() <= 16


def test_smoothing_spreads_over_all_classes() -> None:
    targets = Views(IMAGES, Augmentation(label_smoothing=0.3), 0).batch(ROWS[:1], 0).targets
    torch.testing.assert_close(targets, torch.tensor([[0.8, 0.1, 0.1]]))


@pytest.mark.parametrize("place", range(len(OPERATIONS)))
def test_an_operation_without_strength_changes_nothing(place: int) -> None:
    pixels = torch.from_numpy(IMAGES.images).permute(0, 3, 1, 2).float()
    done = apply(pixels, torch.full((N, 1), place), torch.zeros(N, 1))
    torch.testing.assert_close(done, pixels, atol=0.01, rtol=0)


@pytest.mark.parametrize("place", range(1, len(OPERATIONS)))
def test_an_operation_with_strength_changes_pixels_within_their_range(place: int) -> None:
    pixels = torch.from_numpy(IMAGES.images).permute(0, 3, 1, 2).float()
    done = apply(pixels, torch.full((N, 1), place), torch.full((N, 1), 0.7))
    assert not torch.equal(done, pixels)
    assert done.min() >= 0
    assert done.max() <= 255


def test_smoothing_of_labels_is_no_fact_of_the_pixels() -> None:
    assert Augmentation(label_smoothing=0.2).pixel_facts() == Augmentation().pixel_facts()
    assert Augmentation(flip=True).pixel_facts() != Augmentation().pixel_facts()
