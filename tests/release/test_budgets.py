import pytest

from mobilekd.profile import Budget, Profile
from mobilekd.release.budgets import over_budget

from .workshop import Workshop

ROW = {"deployment": "tflite-int8", "ships": True, "bytes": 9_100_000, "top1_deployed": 0.97, "top1_teacher": 0.98}


@pytest.fixture
def profile(workshop: Workshop) -> Profile:
    return workshop.profile()


def _with(profile: Profile, **limits: float) -> Profile:
    return profile.model_copy(update={"budget": Budget.model_validate(limits)})


def test_a_big_model_is_named_with_both_sizes_and_the_key(profile: Profile):
    assert over_budget(_with(profile, model_bytes=8_000_000), [ROW], []) == (
        "tflite-int8: 9.1 MB model, budget 8.0 MB (budget.model_bytes): pick a smaller student or raise the budget",
    )


def test_a_model_of_exactly_the_budget_holds_it(profile: Profile):
    assert over_budget(_with(profile, model_bytes=9_100_000), [ROW], []) == ()


def test_a_loss_of_exactly_the_budget_holds_it(profile: Profile):
    assert over_budget(_with(profile, top1_drop=0.01), [ROW], []) == ()


def test_a_loss_past_the_budget_is_told_in_points(profile: Profile):
    (sentence,) = over_budget(_with(profile, top1_drop=0.009), [ROW], [])
    assert sentence.startswith("tflite-int8: top-1 is 1.00 points below the teacher's, budget 0.90 points")


def test_the_worst_kernels_of_a_deployment_count_once(profile: Profile):
    rows = [ROW, ROW | {"top1_deployed": 0.90}, ROW | {"top1_deployed": 0.95}]
    (sentence,) = over_budget(_with(profile, top1_drop=0.02), rows, [])
    assert "8.00 points" in sentence


def test_a_baseline_has_no_budget(profile: Profile):
    assert over_budget(_with(profile, model_bytes=1), [ROW | {"ships": False}], []) == ()


def test_an_absent_budget_is_not_checked(profile: Profile):
    assert over_budget(_with(profile), [ROW], [{"deployment": "x", "p50_ms": 1e9, "on_target": True}]) == ()


def test_a_model_that_was_not_run_has_no_top1_to_check(profile: Profile):
    assert (
        over_budget(_with(profile, top1_drop=0.0), [{"deployment": "x", "bytes": None, "top1_teacher": 1.0}], []) == ()
    )


def test_latency_on_the_target_is_checked(profile: Profile):
    row = {"deployment": "tflite-int8", "p50_ms": 12.34, "on_target": True}
    (sentence,) = over_budget(_with(profile, p50_ms=10.0), [], [row])
    assert sentence.startswith("tflite-int8: median latency 12.3 ms, budget 10 ms (budget.p50_ms)")


@pytest.mark.parametrize("row", [{"on_target": False}, {}, {"on_target": True, "ships": False}])
def test_latency_elsewhere_is_not_checked(profile: Profile, row: dict[str, bool]):
    assert over_budget(_with(profile, p50_ms=10.0), [], [{"deployment": "x", "p50_ms": 99.0, **row}]) == ()
