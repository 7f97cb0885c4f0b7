"""Values worked by hand, and the invariances of each method."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from mobilekd.method import Batch, Outputs, Sizes
from mobilekd.methods.attention_transfer import attention_distance, attention_map
from mobilekd.methods.crd import Crd
from mobilekd.methods.dist import uncorrelated
from mobilekd.methods.dkd import decoupled_kl
from mobilekd.methods.fitnets import Fitnets
from mobilekd.methods.kd import softened_kl
from mobilekd.methods.reviewkd import hierarchical_loss
from mobilekd.methods.rkd import pair_distances, triplet_angles
from mobilekd.methods.sp import similarities
from tests.methods.cases import adapters_of, batch, outputs, random

SEEDS = given(seed=st.integers(0, 10_000))


def log_shares(*shares: float) -> Tensor:
    return tensor([[math.log(share) for share in shares]])


def test_dkd_matches_hand_worked_values() -> None:
    # Teacher (1/2, 1/4, 1/4), student (1/4, 1/4, 1/2), label 0: pairs (1/2, 1/2) and (1/4, 3/4); rest (1/2, 1/2) and
    # (1/3, 2/3).
    student, teacher = log_shares(0.25, 0.25, 0.5), log_shares(0.5, 0.25, 0.25)
    target, rest = decoupled_kl(student, teacher, tensor([0]), temperature=1.0)
    assert target.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)
    assert rest.item() == pytest.approx(0.5 * math.log(1.5) + 0.5 * math.log(0.75), abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), temperature=st.floats(1, 8))
def test_dkd_parts_add_up_to_kd(seed: int, temperature: float) -> None:
    student, teacher, labels = random(1, 7, seed=seed), 3 * random(1, 7, seed=seed + 1), tensor([seed % 7])
    target, rest = decoupled_kl(student, teacher, labels, temperature)
    left = 1 - (teacher / temperature).softmax(1)[0, seed % 7]
    whole = softened_kl(student, teacher, temperature)
    torch.testing.assert_close(target + left * rest, whole, rtol=1e-3, atol=1e-5)


def test_dist_of_opposite_rows_is_two() -> None:
    assert uncorrelated(tensor([[1.0, 2.0, 3.0]]), tensor([[3.0, 2.0, 1.0]])).item() == pytest.approx(2.0)


def test_dist_matches_a_hand_worked_correlation() -> None:
    # Centred (-1, 0, 1) and (-1, 1, 0): 1 / 2.
    assert uncorrelated(tensor([[1.0, 2.0, 3.0]]), tensor([[0.0, 2.0, 1.0]])).item() == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_dist_ignores_scale_and_shift_of_a_row(seed: int, scale: float, shift: float) -> None:
    first, second = random(3, 6, seed=seed), random(3, 6, seed=seed + 1)
    torch.testing.assert_close(
        uncorrelated(scale * first + shift, second), uncorrelated(first, second), rtol=1e-3, atol=1e-4
    )


def test_fitnets_matches_a_hand_worked_value() -> None:
    method = Fitnets(stage=0)
    student, teacher = (
        Outputs(tensor([[0.0]]), (torch.ones(1, 1, 2, 2),)),
        Outputs(tensor([[0.0]]), (torch.full((1, 1, 2, 2), 3.0),)),
    )
    assert method.terms(student, teacher, batch(), torch.nn.Identity())["hint"].item() == pytest.approx(4.0)


def test_fitnets_takes_the_middle_stage_by_default() -> None:
    student, teacher = outputs((4, 6, 8)), outputs((5, 7, 9))
    adapter = adapters_of(Fitnets(), student, teacher)
    assert isinstance(adapter, torch.nn.Sequential)
    assert tuple(adapter[0].weight.shape) == (7, 6, 1, 1)


def test_attention_map_matches_a_hand_worked_value() -> None:
    # Squares summed over two channels: 9 + 0 and 0 + 16, halved and brought to length 1: 9 and 16 over root 337.
    features = tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])
    torch.testing.assert_close(attention_map(features), tensor([[9.0, 16.0]]) / math.sqrt(337))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_attention_ignores_scale_sign_and_order_of_channels(seed: int, scale: float) -> None:
    features, other = random(2, 4, 3, 3, seed=seed), random(2, 6, 3, 3, seed=seed + 1)
    changed = -scale * features.flip(1)
    torch.testing.assert_close(
        attention_distance(changed, other), attention_distance(features, other), rtol=1e-4, atol=1e-7
    )


def test_rkd_distances_match_hand_worked_values() -> None:
    # A triangle of sides 3, 4, 5: the mean over ordered pairs is 4.
    distances = pair_distances(tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]))
    torch.testing.assert_close(distances, tensor([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]]) / 4)


def test_rkd_angles_match_hand_worked_values() -> None:
    # Right angle at the first point; at the second the cosine is 3 / 5.
    angles = triplet_angles(tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]))
    assert angles[0, 1, 2].item() == pytest.approx(0.0, abs=1e-6)
    assert angles[1, 0, 2].item() == pytest.approx(0.6, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.5, 4), shift=st.floats(-3, 3))
def test_rkd_ignores_scale_place_and_rotation(seed: int, scale: float, shift: float) -> None:
    embedding = random(5, 3, seed=seed)
    rotation = torch.linalg.qr(random(3, 3, seed=seed + 1)).Q
    moved = scale * embedding @ rotation + shift
    torch.testing.assert_close(pair_distances(moved), pair_distances(embedding), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(triplet_angles(moved), triplet_angles(embedding), rtol=1e-3, atol=1e-3)


def test_rkd_of_equal_embeddings_has_a_finite_gradient() -> None:
    embedding = torch.ones(3, 2, requires_grad=True)
    pair_distances(embedding).sum().backward()  # type: ignore[no-untyped-call]
    assert embedding.grad is None or torch.isfinite(embedding.grad).all()


def test_sp_matches_hand_worked_values() -> None:
    # Rows (1, 0) and (1, 1): products (1, 1) and (1, 2), each of length 1.
    expected = tensor([[1.0, 1.0], [1.0, 2.0]]) / tensor([[math.sqrt(2)], [math.sqrt(5)]])
    torch.testing.assert_close(similarities(tensor([[1.0, 0.0], [1.0, 1.0]])), expected)


@settings(deadline=None, max_examples=30)
@SEEDS
def test_sp_ignores_an_orthogonal_change_of_features(seed: int) -> None:
    features = random(4, 5, seed=seed)
    rotation = torch.linalg.qr(random(5, 5, seed=seed + 1)).Q
    torch.testing.assert_close(similarities(features @ rotation), similarities(features), rtol=1e-3, atol=1e-4)


def test_review_loss_matches_a_hand_worked_value() -> None:
    # A 4x4 map that is 2 apart everywhere: 4 at each level, so 4 whatever the weights.
    assert hierarchical_loss(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 2.0)).item() == pytest.approx(4.0)


def test_review_loss_counts_a_shift_of_the_mean_more_than_noise_without_mean() -> None:
    teacher = torch.zeros(1, 1, 4, 4)
    board = tensor([1.0, -1.0]).repeat(2)
    checks = (board[:, None] * board)[None, None]
    assert hierarchical_loss(checks, teacher) < hierarchical_loss(torch.ones(1, 1, 4, 4), teacher)


def test_crd_matches_a_hand_worked_value() -> None:
    # One training image and one negative, which is the image itself and does not count. Heads give (1); the memory is
    # (1); exp(1/T) = e, Z = e * 1, h = 1, m = 1: each side is -log(1 / 2).
    method = Crd(width=1, negatives=1, contrast_temperature=1.0)
    given_ = Outputs(tensor([[0.0]]), (), tensor([[1.0]]))
    adapters = method.adapters(given_, given_, Sizes(1, 1))
    assert adapters is not None
    for weight in adapters.parameters():
        torch.nn.init.ones_(weight)
    for name in ("student", "teacher"):
        getattr(adapters, f"{name}_memory").fill_(1.0)
    one = Batch(torch.zeros(1, 3, 2, 2), tensor([0]), tensor([[1.0]]), tensor([0]))
    assert method.terms(given_, given_, one, adapters)["contrast"].item() == pytest.approx(2 * math.log(2), abs=1e-6)


def test_crd_renews_the_memories_of_the_batch_only() -> None:
    method, given_ = Crd(), outputs()
    adapters = adapters_of(method, given_, given_)
    assert adapters is not None
    before = adapters.get_buffer("student_memory").clone()
    method.terms(given_, given_, batch(), adapters)
    is_changed = (adapters.get_buffer("student_memory") != before).any(dim=1)
    assert torch.nonzero(is_changed).flatten().tolist() == batch().rows.tolist()


def test_crd_gives_the_same_loss_for_the_same_batch_and_memories() -> None:
    method, given_ = Crd(negatives=4), outputs()
    losses = [method.terms(given_, given_, batch(), adapters_of(method, given_, given_))["contrast"] for _ in range(2)]
    assert torch.equal(*losses)


def test_crd_remembers_embeddings_of_length_one() -> None:
    method, given_ = Crd(), outputs()
    adapters = adapters_of(method, given_, given_)
    assert adapters is not None
    method.terms(given_, given_, batch(), adapters)
    torch.testing.assert_close(adapters.get_buffer("teacher_memory").norm(dim=1), torch.ones(20))
