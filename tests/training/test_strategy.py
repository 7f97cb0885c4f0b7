"""Which weights the labels and the methods get."""

import pytest

from mobilekd.methods.kd import Kd
from mobilekd.training.strategy import Part, Strategy, settled
from tests.training.nets import Answer, Count, Maps

RULES = [
    ({"kd": Kd()}, None, 0.1, {"kd": 0.9}),
    ({"kd": Kd(weight=2.0)}, None, 0.1, {"kd": 1.8}),
    ({"kd": Kd()}, 0.25, 0.75, {"kd": 0.25}),
    ({"kd": Kd()}, 0.0, 1.0, {"kd": 0.0}),
    ({"kd": Kd()}, 1.0, 0.0, {"kd": 1.0}),
    ({"answer": Answer(weight=3.0)}, None, 1.0, {"answer": 3.0}),
    ({"answer": Answer(weight=3.0)}, 0.5, 0.5, {"answer": 1.5}),
    ({"maps": Maps()}, None, 1.0, {"maps": 10.0}),
    ({"maps": Maps()}, 0.0, 1.0, {"maps": 10.0}),
    ({"maps": Maps()}, 0.8, 0.2, {"kd": 0.8, "maps": 10.0}),
    ({"kd": Kd(), "maps": Maps()}, None, 0.1, {"kd": 0.9, "maps": 10.0}),
    ({"kd": Kd(), "answer": Answer()}, None, 0.1, {"kd": 0.9, "answer": 1.0}),
    ({"kd": Kd(), "answer": Answer()}, 0.5, 0.5, {"kd": 0.5, "answer": 0.5}),
]


@pytest.mark.parametrize(("methods", "soft_weight", "hard", "weights"), RULES)
def test_the_weights_follow_the_rules(methods, soft_weight, hard, weights) -> None:
    strategy = settled(methods, soft_weight, Kd())
    assert (strategy.hard_weight, {part.name: part.method.weight for part in strategy.parts}) == (hard, weights)


def test_layers_keep_their_weights() -> None:
    layer = Part("maps", Maps(weight=500.0), "layer1", "layer2")
    assert settled({"kd": Kd()}, 0.5, Kd(), (layer,)).parts[-1] is layer


def test_a_strategy_describes_itself_in_one_line() -> None:
    layer = Part("maps", Maps(weight=500.0, ramp=0.5), "layer1", "layer2")
    strategy = settled({"kd": Kd(), "count": Count(weight=1000.0)}, None, Kd(), (layer,))
    assert strategy.describe() == (
        "0.1 hard + 0.9 kd(temperature 4) + 1000 count + 500 maps(layer1 from layer2, ramp 0.5)"
    )


def test_soft_first_leaves_the_logits_alone_to_count() -> None:
    strategy = Strategy(0.1, (Part("kd", Kd()), Part("maps", Maps())), soft_first=0.25)
    hard, parts = strategy.weights_at(0.2)
    assert (hard, [part.name for part, _ in parts]) == (0.0, ["kd"])


def test_after_soft_first_all_count() -> None:
    strategy = Strategy(0.1, (Part("kd", Kd()), Part("maps", Maps())), soft_first=0.25)
    hard, parts = strategy.weights_at(0.25)
    assert (hard, [part.name for part, _ in parts]) == (0.1, ["kd", "maps"])


def test_a_method_outside_its_part_of_the_run_does_not_count() -> None:
    assert Strategy(1.0, (Part("kd", Kd(start=0.5)),)).weights_at(0.4) == (1.0, [])


@pytest.mark.parametrize(
    ("methods", "is_cached", "told"),
    [
        ({"kd": Kd()}, True, "the teacher runs once for each image and view"),
        ({"kd": Kd()}, False, "the teacher runs in every step"),
        ({"kd": Kd(), "maps": Maps()}, False, "the teacher runs in every step: maps reads its stages"),
        ({"kd": Kd(), "maps": Maps()}, True, "the teacher runs once for each image and view"),
    ],
)
def test_a_strategy_says_when_the_teacher_runs(methods, is_cached, told) -> None:
    assert settled(methods, None, Kd()).teacher_use(is_cached=is_cached) == told


def test_a_born_again_strategy_compares_the_student_with_itself() -> None:
    strategy = Strategy(0.1, (Part("maps", Maps(), "a", "b"),), combine="weighted", student_stages=("c",))
    born_again = strategy.born_again()
    assert (born_again.parts[0].teacher, born_again.teacher_stages, born_again.combine) == ("a", ("c",), "mean")


def test_a_student_with_the_labels_alone_has_no_teacher() -> None:
    strategy = settled({"kd": Kd()}, 0.0, Kd())
    assert strategy.describe() == "1 hard"
    assert strategy.teacher_use(is_cached=True) == "the teacher does not run: no method has a weight"
