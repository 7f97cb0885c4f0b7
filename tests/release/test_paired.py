import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.release.answers import Classes
from mobilekd.release.paired import Drop, largest_class_drop, paired_drop

TRIPLES = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=200)


def _classes(*values: int) -> Classes:
    return np.array(values, np.uint16)


def _rights(rights: int, images: int) -> Classes:
    """Return answers to images of class 0, the first of which are right."""
    return np.array([0] * rights + [1] * (images - rights), np.uint16)


def test_the_interval_is_the_hand_worked_one():
    # 8 images lost, none won, of 98: 8 / 100 ± 1.96 · sqrt(9 - 64 / 100) / 100.
    drop = paired_drop(_rights(98, 98), _rights(98, 98), _rights(90, 98))
    assert (drop.loss, drop.low, drop.high) == (pytest.approx(8 / 98), pytest.approx(0.02333), pytest.approx(0.13667))


def test_an_image_that_both_miss_alike_tells_nothing():
    labels, wrong = _classes(0, 0, 0), _classes(1, 1, 1)
    assert paired_drop(labels, wrong, wrong) == paired_drop(labels, labels, labels)


@given(TRIPLES)
def test_a_loss_turned_round_is_a_gain(triples: list[tuple[int, int, int]]):
    labels, before, after = np.array(triples, np.uint16).T
    there, back = paired_drop(labels, before, after), paired_drop(labels, after, before)
    assert (there.loss, there.low, there.high) == (-back.loss, -back.high, -back.low)


@given(TRIPLES)
def test_the_loss_is_the_difference_of_top1_and_lies_in_its_interval(triples: list[tuple[int, int, int]]):
    labels, before, after = np.array(triples, np.uint16).T
    drop = paired_drop(labels, before, after)
    assert drop.loss == pytest.approx((before == labels).mean() - (after == labels).mean())
    assert drop.low <= drop.loss <= drop.high


def test_the_interval_covers_the_true_loss_in_95_of_100_draws():
    rng = np.random.default_rng(5)
    kinds = rng.choice(4, p=[0.9, 0.04, 0.02, 0.04], size=(2000, 200))  # both right, lost, won, both wrong
    before, after = np.isin(kinds, (0, 1)), np.isin(kinds, (0, 2))
    right = np.ones(200, np.uint16)
    drops = [paired_drop(right, *pair) for pair in zip(before.astype(np.uint16), after.astype(np.uint16), strict=True)]
    assert 0.94 <= np.mean([drop.is_near(0.02) for drop in drops]) <= 0.97


def test_the_class_that_lost_most_is_named_on_its_own_images():
    labels = _classes(0, 0, 1, 1, 1, 1)
    after = _classes(0, 1, 1, 0, 0, 0)
    worst, drop = largest_class_drop(labels, labels, after, 3)
    assert (worst, drop.loss, drop.images) == (1, 0.75, 4)


def test_a_limit_at_the_end_of_the_interval_is_within_the_noise():
    drop = Drop(loss=0.02, low=0.01, high=0.03, images=100)
    assert [drop.is_near(limit) for limit in (0.009, 0.01, 0.03, 0.031)] == [False, True, True, False]
