"""How often `mobilekd.comparison` is right, on simulated machines: equal models, and one that is 5 % slower.

    python -m benchmarks.comparison_power [--trials 500] [--rounds 15] [--seed 0] [--out docs/results]

A machine is a speed that changes with time, shared by both models, a jitter of each run and a clock. A trial times two
models on a machine of its own, as `mobilekd.interleaving` does: mirrored rounds, blocks of 50 ms of a model of 2 ms.
Four tables: the noises with the settings of `compare`; other intervals (t, percentile bootstrap over rounds); other
orders of the blocks; and rounds against runs of a block, with their cost. "50 trials" is the probability that 50 trials
meet the floor: 48 without a difference, or 45 that say slower. Writes comparison_power.json and .md.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilekd.comparison import Comparison, compare, least_rounds, log_ratios, signed_rank_interval

Floats = NDArray[np.float64]
_BASE_MS = 2.0
_SLOWER = 1.05
_CONFIDENCE, _MARGIN = 0.99, 0.01


@dataclass(frozen=True, slots=True)
class Noise:
    """One machine's ways.

    Attributes:
        jitter: Sigma of the log-normal factor of each run.
        preempted: Share of runs that wait for other work; the wait is Pareto with shape 1.5, at least 30 % of a run.
        drift: Log-change of the speed from the first to the last run.
        step: The speed falls by this share at a random time in the middle half; 0 for none.
        wander: Sigma of the AR(1) log-speed that changes from block to block, with correlation 0.9.
        layout: Sigma of the log-speed of one block alone: another layout of memory in each process.
        tick_ms: Resolution of the clock.
    """

    jitter: float
    preempted: float = 0.0
    drift: float = 0.0
    step: float = 0.0
    wander: float = 0.0
    layout: float = 0.0
    tick_ms: float = 0.0


NOISES: Mapping[str, Noise] = {
    "log-normal jitter 3 %": Noise(0.03),
    "log-normal jitter 10 %": Noise(0.10),
    "preemptions, 10 % of the runs": Noise(0.02, preempted=0.10),
    "drift of 15 %": Noise(0.02, drift=0.15),
    "frequency falls by 25 %": Noise(0.02, step=0.25),
    "correlated blocks, 4 %": Noise(0.02, wander=0.04),
    "layout of memory, 2 % a block": Noise(0.02, layout=0.02),
    "clock of 0.07 ms": Noise(0.01, tick_ms=0.07),
    "all of them": Noise(0.05, preempted=0.05, drift=0.08, step=0.15, wander=0.02, layout=0.01, tick_ms=0.02),
}


class Machine:
    """A simulated machine with time of its own."""

    def __init__(self, noise: Noise, length_ms: float, rng: np.random.Generator) -> None:
        self._noise, self._length_ms, self._rng = noise, length_ms, rng
        self._now_ms = rng.uniform(0, 1)
        self._step_ms = length_ms * rng.uniform(0.25, 0.75)
        self._wander = rng.normal(0, noise.wander)

    def time(self, base_ms: float, runs: int) -> list[float]:
        """Return the wall times that the machine's clock shows of consecutive runs."""
        noise, rng = self._noise, self._rng
        self._wander = 0.9 * self._wander + rng.normal(0, noise.wander * math.sqrt(1 - 0.9**2))
        at_ms = self._now_ms + base_ms * np.arange(runs)
        log_factor = noise.drift * at_ms / self._length_ms + self._wander + rng.normal(0, noise.layout)
        factor = np.exp(log_factor + rng.normal(0, noise.jitter, runs))
        factor = np.where(at_ms > self._step_ms, factor / (1 - noise.step), factor) if noise.step else factor
        waits = np.where(rng.random(runs) < noise.preempted, 0.3 * (1 + rng.pareto(1.5, runs)), 0.0)
        ends: Floats = self._now_ms + np.cumsum(base_ms * (factor + np.minimum(waits, 50.0)))
        edges = np.concatenate([[self._now_ms], ends])
        self._now_ms = float(ends[-1])
        if noise.tick_ms:
            edges = np.floor(edges / noise.tick_ms) * noise.tick_ms
        return [float(one) for one in np.diff(edges)]


def main(arguments: Sequence[str]) -> int:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(prog="benchmarks.comparison_power")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args(arguments)
    found = {
        "command": f"python -m benchmarks.comparison_power --trials {options.trials} --rounds {options.rounds} "
        f"--seed {options.seed}",
        "confidence": _CONFIDENCE,
        "margin": _MARGIN,
        "noises": [_noise_row(name, options) for name in NOISES],
        "intervals": [
            _interval_row(name, way, rounds, options)
            for rounds in (least_rounds(_CONFIDENCE), options.rounds)
            for name in NOISES
            for way in INTERVALS
        ],
        "orders": [_order_row(name, order, options) for name in NOISES for order in ORDERS],
        "costs": [_cost_row(rounds, runs, options) for rounds in (8, 12, 15, 20, 30) for runs in (5, 25, 50)],
    }
    _write(found, options.out)
    return 0


def simulate(
    noise: Noise, ratio: float, *, order: str, rounds: int, runs: int, rng: np.random.Generator
) -> tuple[list[list[float]], list[list[float]]]:
    """Return the blocks of two models, the second of which takes `ratio` times the first one's time."""
    sequence = ORDERS[order](rounds, random.Random(int(rng.integers(2**32))))
    machine = Machine(noise, len(sequence) * runs * _BASE_MS, rng)
    blocks: tuple[list[list[float]], list[list[float]]] = ([], [])
    for model in sequence:
        blocks[model].append(machine.time(_BASE_MS * (ratio if model else 1.0), runs))
    return blocks


def _mirrored(rounds: int, rng: random.Random) -> list[int]:
    firsts = [rng.randrange(2) for _ in range(rounds)]
    return [model for first in firsts for model in (first, 1 - first, 1 - first, first)]


def _random(rounds: int, rng: random.Random) -> list[int]:
    firsts = [rng.randrange(2) for _ in range(2 * rounds)]
    return [model for first in firsts for model in (first, 1 - first)]


ORDERS: Mapping[str, Callable[[int, random.Random], list[int]]] = {
    "mirrored, drawn": _mirrored,
    "pairs, drawn": _random,
    "A B always": lambda rounds, _: [0, 1] * (2 * rounds),
    "all A, then all B": lambda rounds, _: [0] * (2 * rounds) + [1] * (2 * rounds),
}


def _t_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    from scipy import stats

    center = float(np.mean(values))
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return center, center - half, center + half


def _bootstrap_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    drawn = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.median(values)), float(low), float(high)


INTERVALS: Mapping[str, Callable[[Sequence[float], float], tuple[float, float, float]]] = {
    "signed rank": signed_rank_interval,
    "t": _t_interval,
    "bootstrap of the median": _bootstrap_interval,
}


def _noise_row(name: str, options: argparse.Namespace) -> dict[str, Any]:
    return {"noise": name, **_rates(_comparisons(name, 25, options.rounds, options))}


def _cost_row(rounds: int, runs: int, options: argparse.Namespace) -> dict[str, Any]:
    rates = _rates(_comparisons("all of them", runs, rounds, options))
    cost = {"rounds": rounds, "block_runs": runs, "timed_runs": 2 * rounds * runs}
    return {**cost, "seconds_a_model": 2 * rounds * runs * _BASE_MS / 1e3, **rates}


def _comparisons(name: str, runs: int, rounds: int, options: argparse.Namespace) -> dict[float, list[Comparison]]:
    found = {}
    for ratio in (1.0, _SLOWER):
        rng = np.random.default_rng([options.seed, list(NOISES).index(name), runs, rounds, round(ratio * 100)])
        drawn = (
            simulate(NOISES[name], ratio, order="mirrored, drawn", rounds=rounds, runs=runs, rng=rng)
            for _ in range(options.trials)
        )
        found[ratio] = [compare(a, b, confidence=_CONFIDENCE, margin=_MARGIN) for a, b in drawn]
    return found


def _rates(found: Mapping[float, Sequence[Comparison]]) -> dict[str, float]:
    none = _share([one.verdict == "no difference" for one in found[1.0]])
    slower = _share([one.verdict == "slower" for one in found[_SLOWER]])
    covered = _share([one.interval[0] <= _SLOWER <= one.interval[1] for one in found[_SLOWER]])
    width = float(np.median([one.interval[1] - one.interval[0] for one in found[_SLOWER]]))
    return {
        "no_difference": none,
        "slower": slower,
        "fifty_no_difference": _at_least(48, none),
        "fifty_slower": _at_least(45, slower),
        "covered": covered,
        "interval_width": width,
    }


def _interval_row(name: str, way: str, rounds: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return how often an interval excludes no difference between equal models, and finds a true one; no margin."""
    row = _excluded(name, "mirrored, drawn", INTERVALS[way], options, rounds=rounds)
    return {"rounds": rounds, "noise": name, "interval": way, **row}


def _order_row(name: str, order: str, options: argparse.Namespace) -> dict[str, Any]:
    row = _excluded(name, order, signed_rank_interval, options, rounds=options.rounds)
    return {"noise": name, "order": order, **row}


def _excluded(
    name: str,
    order: str,
    interval: Callable[[Sequence[float], float], tuple[float, float, float]],
    options: argparse.Namespace,
    *,
    rounds: int,
) -> dict[str, float]:
    shares, widths = [], []
    for ratio in (1.0, _SLOWER):
        rng = np.random.default_rng([options.seed, list(NOISES).index(name), rounds, round(ratio * 100), 1])
        excluded = []
        for _ in range(options.trials):
            a, b = simulate(NOISES[name], ratio, order=order, rounds=rounds, runs=25, rng=rng)
            _, low, high = interval(log_ratios(a, b), _CONFIDENCE)
            widths.append(high - low)
            excluded.append(low > 0 or (ratio == 1.0 and high < 0))
        shares.append(_share(excluded))
    return {"equal_told_apart": shares[0], "slower_found": shares[1], "interval_width": float(np.median(widths))}


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims)


def _at_least(needed: int, share: float, trials: int = 50) -> float:
    """Return the probability that at least so many of the trials succeed."""
    return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(needed, trials + 1))


def _write(found: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison_power.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    setting = f"{_CONFIDENCE:.0%} interval, margin {_MARGIN:.0%}"
    lines = ["# How often a comparison is right", "", f"`{found['command']}` ({setting})", ""]
    lines += _table(("noise",), found["noises"])
    lines += ["", "Other intervals, without the margin:", ""]
    lines += _plain(("rounds", "noise", "interval"), found["intervals"])
    lines += ["", "Other orders, signed rank, without the margin, as many blocks:", ""]
    lines += _plain(("noise", "order"), found["orders"])
    lines += ["", "Rounds and runs of a block, noise: all of them, a model of 2 ms:", ""]
    lines += _table(("rounds", "block_runs", "timed_runs", "seconds_a_model"), found["costs"])
    text = "\n".join(lines) + "\n"
    (out / "comparison_power.md").write_text(text, encoding="utf-8")
    print(text, end="")


def _table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = ["A/A: no difference", "50 trials", "A/1.05A: slower", "50 trials", "interval covers 1.05", "its width"]
    keys = ("no_difference", "fifty_no_difference", "slower", "fifty_slower", "covered", "interval_width")
    return _markdown([*names, *heads], [[*(row[n] for n in names), *(f"{row[k]:.1%}" for k in keys)] for row in rows])


def _plain(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = ("equal_told_apart", "slower_found", "interval_width")
    cells = [[*(row[name] for name in names), *(f"{row[key]:.1%}" for key in keys)] for row in rows]
    return _markdown([*names, "equal models told apart", "5 % found", "median width"], cells)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    ruled = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(str(cell).replace("_", " ") for cell in row) + " |" for row in ruled]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
