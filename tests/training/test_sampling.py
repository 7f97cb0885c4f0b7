import numpy as np
import pytest

from mobilekd.training.sampling import Sampling, epoch_rows

LABELS = np.array([0] * 90 + [1] * 25 + [2] * 5)
KINDS: list[Sampling] = ["shuffled", "balanced"]


def test_a_shuffled_epoch_has_every_image_once() -> None:
    assert sorted(epoch_rows(LABELS, 3, 1, 0, "shuffled")) == list(range(120))


def test_a_part_of_a_shuffled_epoch_is_its_beginning() -> None:
    whole = epoch_rows(LABELS, 3, 1, 0, "shuffled")
    assert epoch_rows(LABELS, 3, 1, 50, "shuffled").tolist() == whole[:50].tolist()


def test_the_shuffled_order_is_the_permutation_of_seed_and_epoch() -> None:
    expected = np.random.default_rng((3, 1)).permutation(120)
    assert epoch_rows(LABELS, 3, 1, 0, "shuffled").tolist() == expected.tolist()


@pytest.mark.parametrize("length", [0, 50, 2, 119])
def test_a_balanced_epoch_has_each_class_equally_often_to_within_one(length: int) -> None:
    counts = np.bincount(LABELS[epoch_rows(LABELS, 3, 1, length, "balanced")], minlength=3)
    assert counts.sum() == (length or 120)
    assert counts.max() - counts.min() <= 1


def test_over_epochs_no_class_gets_the_remainder_more_often() -> None:
    """Two rows of three classes: each class is left out in a third of 600 epochs."""
    counts = np.bincount(LABELS[np.concatenate([epoch_rows(LABELS, 3, e, 2, "balanced") for e in range(600)])])
    assert np.abs(counts - 400).max() < 50  # the standard deviation is 11.5


def test_images_of_a_class_come_equally_often_to_within_one() -> None:
    rows = epoch_rows(LABELS, 3, 1, 0, "balanced")
    often = np.bincount(rows, minlength=120)
    assert set(often[115:]) == {8}
    assert set(often[90:115]) == {1, 2}
    assert set(often[:90]) == {0, 1}


@pytest.mark.parametrize("sampling", KINDS)
def test_the_same_seed_and_epoch_give_the_same_rows(sampling: Sampling) -> None:
    first, again = (epoch_rows(LABELS, 3, 1, 0, sampling) for _ in range(2))
    assert first.tolist() == again.tolist()


@pytest.mark.parametrize("sampling", KINDS)
@pytest.mark.parametrize(("seed", "epoch"), [(3, 2), (4, 1)])
def test_another_seed_or_epoch_gives_other_rows(sampling: Sampling, seed: int, epoch: int) -> None:
    assert epoch_rows(LABELS, seed, epoch, 0, sampling).tolist() != epoch_rows(LABELS, 3, 1, 0, sampling).tolist()


@pytest.mark.parametrize("sampling", KINDS)
def test_more_images_than_there_are_mean_all(sampling: Sampling) -> None:
    assert len(epoch_rows(LABELS, 3, 1, 999, sampling)) == 120


def test_a_class_without_images_is_no_error() -> None:
    counts = np.bincount(np.array([0, 2, 2, 2])[epoch_rows(np.array([0, 2, 2, 2]), 0, 0, 0, "balanced")])
    assert counts.tolist() == [2, 0, 2]
