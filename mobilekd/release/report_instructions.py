"""The report on an emulator: counted instructions, and what the models answered there."""

from mobilekd.release.evidence import Evidence, Instructions, LatencyRow, OnDevice
from mobilekd.release.markup import NOTHING, Html
from mobilekd.release.report_format import ABSENT, count, line, megabytes, percent, series, stacked, table
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
    """Return a line for each model: its instructions as a bar, by class, and its answers against the host's."""
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
        ("n", "Answers against the host"),
        ("n", "Peak memory"),
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
        ("n", _answers(row.on_device)),
        ("n", megabytes(row.peak_memory_bytes)),
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


def _answers(found: OnDevice | None) -> Html | str:
    if found is None:
        return ABSENT
    exact = found.exact_images == found.images
    told = "bit-exact" if exact else f"{found.images - found.exact_images} differ"
    top1 = "" if found.top1 is None else f", top-1 {percent(found.top1)}"
    return stacked(told, f"{found.images} images{top1}")
