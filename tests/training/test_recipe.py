from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.training.recipe import lr_factor
from tests.training.toy import RECIPE

SCHEDULES = ("cosine", "step", "onecycle")


@given(st.floats(0, 1), st.floats(0, 0.6), st.sampled_from(SCHEDULES))
def test_the_learning_rate_stays_between_zero_and_its_peak(progress, warmup, schedule) -> None:
    assert 0 <= lr_factor(progress, warmup, schedule) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3])
def test_the_peak_is_at_the_end_of_the_warm_up(schedule, warmup) -> None:
    assert lr_factor(warmup, warmup, schedule) == 1


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.05), (149, 0.05), (150, 0.005), (180, 5e-4), (209, 5e-4), (210, 5e-5), (239, 5e-5)]
)
def test_the_steps_are_those_of_the_cifar_papers(epoch, rate) -> None:
    assert 0.05 * lr_factor(epoch / 240, 0.0, "step") == pytest.approx(rate)


@pytest.mark.parametrize("step", [0, 7, 30, 31, 64, 99])
def test_one_cycle_is_that_of_torch(step) -> None:
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch counts the last of its steps as the end of the run, and the peak one step early
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 101, pct_start=31 / 101, cycle_momentum=False)
    optimizer.step()
    [cycle.step() for _ in range(step)]
    assert lr_factor(step / 100, 0.3, "onecycle") == pytest.approx(cycle.get_last_lr()[0], rel=1e-6)


@pytest.mark.parametrize(("images", "times"), [(1000, 8.0), (512, 8.0), (65, 65 / 64)])
def test_the_rate_follows_the_images_that_a_batch_really_has(images, times) -> None:
    recipe = replace(RECIPE, batch_size=512, base_batch_size=64, warmup=0.0)
    assert recipe.learning_rate_at(0.0, images) == pytest.approx(times * RECIPE.learning_rate)
