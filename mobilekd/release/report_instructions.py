"""The report on an emulator: counted instructions, and what the models answered there."""

from mobilekd.benchmarking.agreement_told import explained
from mobilekd.release.evidence import Evidence, Instructions, LatencyRow, OnDevice
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.release.report_format import ABSENT, count, line, percent, series, stacked, table
from mobilekd.release.report_plots import bar_lane

_CLASSES = (("dot_product", "dot product"), ("i8mm", "int8 matrix"), ("simd", "other SIMD"), ("loads", "loads"))


def instruction_lede(evidence: Evidence) -> str:
    """Return what was counted where."""
    latency = evidence.latency
    why = f" Not on a device: {latency.why}." if latency.why else ""
    return (
        f"Instructions of one inference on {latency.ran_on}, 1 thread, counted by the emulator: they repeat, but say "
        f"nothing of caches and clocks, so they rank models and are no times.{why} {latency.measured}."
    )


def instruction_table(evidence: Evidence) -> Html:
    """Return a line for each model: its instructions as a bar, and by class."""
    rows = evidence.latency.rows
    most = max((row.guest_instructions.total for row in rows if row.guest_instructions), default=0)
    if not most:
        return NOTHING
    heads = (
        ("", "Model"),
        ("n", "Instructions"),
        ("plot", ""),
        ("n", "fp32 / int8"),
        *(("n", title) for _, title in _CLASSES),
    )
    return table(heads, (_line(row, most) for row in rows))


def _line(row: LatencyRow, most: int) -> Html:
    counted = row.guest_instructions
    ratio = ABSENT if row.int8_speedup is None else f"{row.int8_speedup:.2f} ×"
    beside = ", ".join(part for part in (row.note or "", "" if row.ships else "baseline, not shipped") if part)
    classes = (counted.classes.get(key) if counted else None for key, _ in _CLASSES)
    return line(
        ("name", stacked(row.deployment, beside)),
        ("n", stacked(count(counted.total), spread_told(counted)) if counted else ABSENT),
        ("plot", bar_lane(counted.total / most, series(row.precision)) if counted else NOTHING),
        ("n", ratio),
        *(("n", count(value)) for value in classes),
        kind="" if row.ships else "baseline",
    )


def spread_told(counted: Instructions) -> str:
    """Return how far the runs are apart.

    Example:
        >>> spread_told(Instructions(total=1000, smallest=1000, largest=1000, runs=3))
        '3 runs, identical'
    """
    if counted.smallest == counted.largest:
        return f"{counted.runs} runs, identical"
    kernel = " with the kernel's instructions" if counted.counted_by == "icount" else ""
    return f"{counted.runs} runs, {100 * (counted.largest - counted.smallest) / counted.total:.3f} % apart{kernel}"


def answers_table(evidence: Evidence) -> Html:
    """Return a line for each model that answered on the device or emulator: its answers against this host's."""
    rows = [(row, row.on_device) for row in evidence.latency.rows if row.on_device is not None]
    if not rows:
        return NOTHING
    heads = (
        ("", f"Answers on {evidence.latency.ran_on}"),
        ("n", "Images"),
        ("n", "Same answer"),
        ("n", "Bit-exact"),
        ("n", "Largest difference"),
        ("n", "As trained (host)"),
        ("n", "Top-1 (host)"),
    )
    machine = evidence.latency.device.machine if evidence.latency.device else ""
    told = filter(None, (explained(row.model_dump(), evidence.latency.host, machine) for row, _ in rows))
    notes = (tag("p", {"class": "muted"}, sentence) for sentence in told)
    return join((table(heads, (_answers(row, found) for row, found in rows)), *notes))


def _answers(row: LatencyRow, found: OnDevice) -> Html:
    return line(
        ("name", stacked(row.deployment, "" if row.ships else "baseline, not shipped")),
        ("n", count(found.images)),
        ("n", count(found.same_answers)),
        ("n", count(found.exact_images)),
        ("n", ABSENT if found.max_difference is None else f"{found.max_difference:.3g}"),
        ("n", ABSENT if not (was := found.trained) else f"{was.exact_images} ({was.host_exact_images})"),
        ("n", f"{percent(found.top1)} ({percent(found.host_top1)})"),
        kind="" if row.ships else "baseline",
    )
