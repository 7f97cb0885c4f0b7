"""Which layer int8 hurts, and which layers stay float for it."""

import copy

import pytest
import torch
from torch.fx import GraphModule

from mobilekd.errors import StageError
from mobilekd.quantization import qat
from mobilekd.quantization.fake_quant import FakeQuant, PerChannelFakeQuant
from mobilekd.quantization.mixed import Mixed, Trial, choose_float_layers
from mobilekd.quantization.sensitivity import LayerSensitivity, Ranking, rank_layers
from tests.quantization.plain import LAYERS, RECIPE, answers, images, plain

LOWERED = RECIPE.lowered(plain(), images(2))


def calibrated(*keep_float: str) -> GraphModule:
    return RECIPE.calibrated(LOWERED, images().split(20), frozenset(keep_float))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    given = images()
    return list(zip(given.split(20), answers(plain(), given).split(20), strict=True))


def top1(network: GraphModule) -> float:
    given = images()
    return float((answers(network, given) == answers(plain(), given)).float().mean())


def fake_quants(prepared: GraphModule) -> dict[str, FakeQuant]:
    return {one.name: one for one in prepared.modules() if isinstance(one, FakeQuant)}


@pytest.fixture(scope="module")
def prepared() -> GraphModule:
    return calibrated()


@pytest.fixture(scope="module")
def ranking(prepared) -> Ranking:
    return rank_layers(prepared, batches())


def test_a_layer_with_a_weight_that_spoils_its_scale_ranks_first(ranking) -> None:
    assert ranking.layers[0].layer == "spoiled"
    assert ranking.layers[0].top1_drop > 0.2
    assert ranking.layers[0].kl > 10 * ranking.layers[1].kl


def test_every_layer_is_ranked_with_what_it_holds_and_computes(ranking) -> None:
    found = {one.layer: (one.operator, one.weights, one.macs) for one in ranking.layers}
    assert found == {
        "stem": ("conv2d", 216, 216 * 64),
        "middle": ("conv2d", 576, 576 * 64),
        "spoiled": ("conv2d", 64, 64 * 64),
        "head": ("linear", 40, 40),
    }


def test_top1_of_a_ranking_is_that_of_the_network(ranking, prepared) -> None:
    assert (ranking.images, ranking.top1_float) == (40, 1.0)
    assert ranking.top1_int8 == pytest.approx(top1(prepared))


def test_divergence_is_never_below_zero(ranking) -> None:
    assert min(one.kl for one in ranking.layers) >= 0


def test_a_ranking_leaves_the_network_as_it_was(prepared) -> None:
    before = copy.deepcopy(prepared.state_dict())
    rank_layers(prepared, batches())
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())


def test_a_layer_alone_is_the_network_with_all_other_roundings_off(ranking) -> None:
    network = calibrated()
    parts = fake_quants(network)
    for name in parts.keys() - {"middle.weight", "middle"}:
        parts[name].disable_fake_quant()
    given = images()
    with torch.no_grad():
        sure, told = plain()(given).log_softmax(1), network(given).log_softmax(1)
    expected = float((sure.exp() * (sure - told)).sum(1).mean())
    found = next(one.kl for one in ranking.layers if one.layer == "middle")
    assert found == pytest.approx(expected, rel=1e-3)


def test_the_first_layer_is_judged_with_the_rounding_of_the_image() -> None:
    network = calibrated("spoiled")
    with torch.no_grad():
        fake_quants(network)["image"].scale.mul_(100)
    assert rank_layers(network, batches()).layers[0].layer == "stem"


def test_layers_whose_weight_is_not_rounded_are_left_out() -> None:
    assert {one.layer for one in rank_layers(calibrated("spoiled", "head"), batches()).layers} == {"stem", "middle"}


def test_keep_float_of_every_layer_leaves_no_int8_weight_and_rounds_the_image_alone() -> None:
    parts = [one for one in calibrated(*LAYERS).modules() if isinstance(one, FakeQuant)]
    assert not [one for one in parts if isinstance(one, PerChannelFakeQuant)]
    assert {one.name for one in parts} == {"image", "spoiled", "mean_dim"}  # the mean's input and output: it is int8


def test_a_tensor_between_two_float_layers_is_not_rounded() -> None:
    assert "stem" not in fake_quants(calibrated("stem", "middle"))


def test_a_tensor_that_an_int8_layer_reads_is_rounded() -> None:
    assert "stem" in fake_quants(calibrated("stem"))


def test_the_answer_of_a_float_layer_is_not_rounded() -> None:
    assert "head" in fake_quants(calibrated())
    assert "head" not in fake_quants(calibrated("head"))


def trial() -> Trial:
    """Return the real way to try a choice."""
    return Trial(lambda keep: calibrated(*keep), top1, lambda network: rank_layers(network, batches()).layers)


@pytest.fixture(scope="module")
def chosen() -> tuple[GraphModule, Mixed]:
    return choose_float_layers(trial(), 1.0, 0.25, frozenset())


def test_the_spoiled_layer_alone_stays_float_and_the_drop_holds(chosen) -> None:
    network, mixed = chosen
    assert mixed.layers == ("spoiled",)
    assert mixed.top1_int8 < 0.5
    assert 0.75 <= mixed.top1_mixed == top1(network)
    assert mixed.extra_bytes == 3 * 64
    assert mixed.float_macs_share == pytest.approx(64 * 64 / (856 * 64 + 40))


def test_no_layer_stays_float_where_int8_holds() -> None:
    _, mixed = choose_float_layers(trial(), 1.0, 1.0, frozenset())
    assert (mixed.layers, mixed.extra_bytes, mixed.float_macs_share) == ((), 0, 0.0)
    assert "no layer stays float" in mixed.told()


def test_a_layer_of_keep_float_is_not_counted_as_chosen() -> None:
    _, mixed = choose_float_layers(trial(), 1.0, 0.25, frozenset({"spoiled"}))
    assert mixed.layers == ()


@pytest.mark.parametrize("needed", range(5))
def test_as_few_layers_stay_float_as_it_takes(prepared, needed: int) -> None:
    asked: list[frozenset[str]] = []
    rows = [LayerSensitivity(name, "conv2d", 1, 1, 0.0, 0.0) for name in LAYERS]
    counted = Trial(
        lambda keep: (asked.append(keep), prepared)[1], lambda _: float(len(asked[-1]) >= needed), lambda _: rows
    )
    assert choose_float_layers(counted, 1.0, 0.0, frozenset())[1].layers == LAYERS[:needed]


def test_a_drop_that_no_choice_meets_is_refused_with_figures(prepared) -> None:
    hopeless = Trial(lambda _: prepared, lambda _: 0.5, trial().rank)
    with pytest.raises(StageError, match=r"50\.00% with every layer in float .* is 100\.00%.* allows 1\.00% less"):
        choose_float_layers(hopeless, 1.0, 0.01, frozenset())


def test_the_line_for_the_user_has_layers_drop_and_price(chosen) -> None:
    told = chosen[1].told()
    assert "1 layer(s) stay float: spoiled. Top-1 without them in float" in told
    assert "192 bytes more, and 7.5% of the multiply-accumulates in float" in told


def test_an_unknown_layer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StageError, match="no layer 'tail'") as refusal:
        calibrated("tail")
    assert refusal.value.hint == "its layers: head, middle, spoiled, stem"


def test_layers_are_named_in_graph_order(prepared) -> None:
    assert tuple(name for name, _ in qat.layer_nodes(prepared)) == LAYERS
