from dataclasses import replace

import numpy as np
import pytest
import torch

from mobilekd.errors import StageError
from mobilekd.preprocessing import normalize
from mobilekd.training import loop
from mobilekd.training.device import slow_precision
from mobilekd.training.loop import fit, top1
from tests.training.toy import FACTS, RECIPE, Killed, Noisy, Quiet, distance, network, plain_network, run


@pytest.mark.parametrize("die_at", [1, 4, 5, 9, 14])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw"},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "ema": 0.9, "patience": 3},
        {"accumulation": 3, "precision": "bf16", "views": 2, "sampling": "balanced", "schedule": "onecycle"},
        {"workers": 2, "patience": 2, "base_batch_size": 4, "schedule": "step"},
    ],
    ids=str,
)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path, monkeypatch, die_at, changes) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    recipe = replace(RECIPE, **changes)
    whole, killed, resumed = network(), network(), network()
    torch.manual_seed(1)
    adapters = [Noisy(), Noisy(), Noisy()]
    adapters[2].load_state_dict(adapters[0].state_dict())
    adapters[1].load_state_dict(adapters[0].state_dict())
    history = fit(run(tmp_path / "whole", whole, Quiet(), adapters[0]), recipe)
    with pytest.raises(Killed):
        fit(run(tmp_path / "killed", killed, Quiet(die_at), adapters[1]), recipe)
    quiet = Quiet()
    assert fit(run(tmp_path / "killed", resumed, quiet, adapters[2]), recipe) == history
    assert [line for line in quiet.lines if "going on" in line] == [f"toy: going on from step {die_at - 1}"] * (
        die_at > 1
    )
    assert distance(whole, resumed) == 0
    assert distance(adapters[0], adapters[2]) == 0


def test_a_finished_run_is_not_trained_again(tmp_path) -> None:
    whole, again = network(), network()
    history = fit(run(tmp_path, whole), replace(RECIPE, ema=0.9))
    quiet = Quiet()
    assert fit(run(tmp_path, again, quiet), replace(RECIPE, ema=0.9)) == history
    assert quiet.steps == 0
    assert distance(whole, again) == 0


def test_a_damaged_checkpoint_starts_again(tmp_path) -> None:
    history = fit(run(tmp_path, network()), RECIPE)
    (tmp_path / "checkpoint.pt").write_bytes(b"cut off")
    assert fit(run(tmp_path, network()), RECIPE) == history


def test_a_checkpoint_of_an_older_version_starts_again(tmp_path) -> None:
    history = fit(run(tmp_path, network()), RECIPE)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "version"}, tmp_path / "checkpoint.pt")
    quiet = Quiet()
    assert fit(run(tmp_path, network(), quiet), RECIPE) == history
    assert "older version" in quiet.lines[0]


def test_a_checkpoint_of_another_recipe_starts_again(tmp_path) -> None:
    history = fit(run(tmp_path / "whole", network()), RECIPE)
    fit(run(tmp_path / "other", network()), replace(RECIPE, seed=8))
    quiet = Quiet()
    assert fit(run(tmp_path / "other", network(), quiet), RECIPE) == history
    assert "another recipe" in quiet.lines[0]


def test_early_stop_ends_patience_epochs_after_the_best_and_restores_it(tmp_path) -> None:
    stopped = network()
    task = run(tmp_path, stopped)
    history = fit(task, replace(RECIPE, epochs=40, learning_rate=0.05, patience=3))
    shares = [record["top1"] for record in history]
    assert len(shares) < 40
    assert shares.index(max(shares)) == len(shares) - 4
    assert top1(loop.predict(stopped, task.validation), task.validation.labels) == max(shares)


@pytest.mark.parametrize("accumulation", [2, 4, 8, 100])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, accumulation) -> None:
    whole, parts = plain_network(), plain_network()
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=0.1)
    history = fit(run(tmp_path / "whole", whole), recipe)
    split = fit(run(tmp_path / "parts", parts), replace(recipe, accumulation=accumulation))
    assert distance(whole, parts) < 1e-5
    assert split[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=1e-5)


def test_uneven_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path) -> None:
    whole, parts = plain_network(), plain_network()
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=0.1, batch_size=7)
    fit(run(tmp_path / "whole", whole), recipe)
    fit(run(tmp_path / "parts", parts), replace(recipe, accumulation=3))
    assert distance(whole, parts) < 1e-5


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("layout", ["channels last", "transposed"])
def test_the_memory_layout_of_a_weight_changes_nothing(tmp_path, optimizer, layout) -> None:
    rows, other = plain_network(), plain_network()
    weight = other[0].weight.data
    other[0].weight.data = {
        "channels last": weight.contiguous(memory_format=torch.channels_last),
        "transposed": weight.transpose(0, 2).contiguous().transpose(0, 2),
    }[layout]
    recipe = replace(RECIPE, optimizer=optimizer, learning_rate=1e-3)
    fit(run(tmp_path / "rows", rows), recipe)
    fit(run(tmp_path / "other", other), recipe)
    assert distance(rows, other) < 1e-5


def test_half_precision_trains_close_to_full(tmp_path) -> None:
    full = fit(run(tmp_path / "full", plain_network()), RECIPE)
    half = fit(run(tmp_path / "half", plain_network()), replace(RECIPE, precision="bf16"))
    assert half[-1]["loss"] == pytest.approx(full[-1]["loss"], rel=0.02)
    assert half != full


def test_the_learning_rate_scales_with_the_batch(tmp_path) -> None:
    rates = [fit(run(tmp_path / str(base), network()), replace(RECIPE, base_batch_size=base)) for base in (0, 4)]
    assert [two["lr"] / one["lr"] for one, two in zip(*rates, strict=True)] == pytest.approx([2.0] * 3)


def test_a_batch_that_is_smaller_than_asked_is_told(tmp_path) -> None:
    quiet = Quiet()
    fit(run(tmp_path, network(), quiet), replace(RECIPE, batch_size=64))
    assert quiet.lines == ["toy: a batch has 40 images, all of an epoch; batch_size asks for 64"]


def test_an_epoch_of_fewer_images_has_fewer_steps() -> None:
    assert replace(RECIPE, train_images=16).steps_per_epoch(40) == 2
    assert replace(RECIPE, train_images=100).steps_per_epoch(40) == 5


def test_training_learns(tmp_path) -> None:
    history = fit(run(tmp_path, network()), replace(RECIPE, epochs=30))
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]


def test_the_terms_of_the_steps_average_to_the_record_of_the_epoch(tmp_path) -> None:
    steps: list[float] = []
    task = replace(run(tmp_path, network()), on_step=lambda step, terms: steps.append(terms["hard"]))
    history = fit(task, RECIPE)
    assert [record["hard"] for record in history] == pytest.approx(np.array(steps).reshape(3, 5).mean(1).tolist())


def test_a_watcher_sees_each_record_and_a_speed(tmp_path) -> None:
    class Notes(list):
        def epoch(self, record, speed):
            self.append((dict(record), speed))

    notes = Notes()
    history = fit(replace(run(tmp_path, network()), watch=notes), RECIPE)
    assert [record for record, _ in notes] == history
    assert all(speed.images_per_s > 0 and speed.peak_bytes > 0 and 0 <= speed.data_wait <= 1 for _, speed in notes)


def test_fp16_on_a_cpu_says_what_to_use(tmp_path) -> None:
    with pytest.raises(StageError) as caught:
        fit(run(tmp_path, network()), replace(RECIPE, precision="fp16", device="cpu"))
    assert "bf16" in caught.value.hint


def test_compiling_without_a_compiler_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("CXX", raising=False)  # torch keeps the first CXX that it sees, so this test sets none
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StageError, match="needs a C\\+\\+ compiler") as caught:
        fit(run(tmp_path, network()), replace(RECIPE, compile=True, device="cpu"))
    assert "compile = false" in caught.value.hint


@pytest.mark.parametrize("flags", ["avx2", "avx512_bf162"])
def test_bf16_without_its_units_is_told(flags) -> None:
    assert "set precision = 'fp32'" in slow_precision("bf16", torch.device("cpu"), f"flags\t: sse2 {flags}\n")


@pytest.mark.parametrize(
    ("name", "device", "cpuinfo"),
    [
        ("fp32", "cpu", "flags : avx2"),
        ("bf16", "cuda", "flags : avx2"),
        ("bf16", "cpu", ""),
        ("bf16", "cpu", "flags : avx2 amx_bf16 amx_int8"),
        ("bf16", "cpu", "Features : fp asimd bf16"),
    ],
)
def test_there_is_no_advice_where_bf16_is_well(name, device, cpuinfo) -> None:
    assert slow_precision(name, torch.device(device), cpuinfo) == ""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_a_compiled_network_trains_like_the_eager_one(tmp_path) -> None:
    quiet, eager, fast = Quiet(), plain_network(), plain_network()
    history = fit(run(tmp_path / "eager", eager), replace(RECIPE, device="cpu"))
    compiled = fit(run(tmp_path / "fast", fast, quiet), replace(RECIPE, device="cpu", compile=True))
    assert compiled[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=1e-3)
    assert "torch.compile and a step took" in quiet.lines[0]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert "forward" not in vars(fast)


def test_normalize_of_a_hand_worked_pixel() -> None:
    pixel = np.array([[[[255, 0, 51]]]], np.uint8)
    assert normalize(pixel, FACTS.mean, FACTS.std).reshape(-1).tolist() == pytest.approx([2.0, -2.0, -1.2])


def test_top1_counts_the_largest_logit() -> None:
    assert top1(np.array([[0, 1], [1, 0], [0, 1]], np.float32), np.array([1, 1, 1])) == pytest.approx(2 / 3)
