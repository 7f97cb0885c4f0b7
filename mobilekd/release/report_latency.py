"""The report on latency."""

from mobilekd.release.evidence import Evidence, LatencyRow
from mobilekd.release.markup import NOTHING, Html
from mobilekd.release.report_format import ABSENT, count, line, megabytes, milliseconds, series, stacked, table
from mobilekd.release.report_plots import latency_axis, latency_strip, tick_row


def latency_plot(evidence: Evidence) -> Html:
    """Return every timed run of every model on one axis."""
    latency = evidence.latency
    sampled = ((row, latency.samples_of(row.deployment)) for row in latency.rows)
    drawn = [(row, samples) for row, samples in sampled if samples]
    if not drawn:
        return NOTHING
    axis = latency_axis([samples for _, samples in drawn])
    heads = (("", "Model"), ("n", "Median"), ("plot wide", tick_row(axis, " ms")))
    rows = (
        line(
            ("name", row.deployment),
            ("n", f"{milliseconds(row.p50_ms)} ms"),
            ("plot wide", latency_strip(axis, row, samples, series(row.precision))),
        )
        for row, samples in drawn
    )
    return table(heads, rows)


def latency_table(evidence: Evidence) -> Html:
    """Return the percentiles and what else was measured of every model."""
    heads = (
        ("", "Model"),
        ("n", "p50, ms"),
        ("n", "95 % interval of p50, ms"),
        ("n", "p90, ms"),
        ("n", "p95, ms"),
        ("n", "p99, ms"),
        ("n", "Speed-up over fp32"),
        ("n", "Load, ms"),
        ("n", "Peak memory"),
        ("n", "Runs"),
        ("", "Verdict"),
    )
    return table(heads, (_latency_row(row) for row in evidence.latency.rows))


def _latency_row(row: LatencyRow) -> Html:
    low_high = (milliseconds(value) for value in row.ci95_ms) if row.ci95_ms else (ABSENT,)
    speedup = ABSENT if row.int8_speedup is None else f"{row.int8_speedup:.2f} ×"
    warm_up = "" if row.warmup_runs is None else f"{row.warmup_runs} warm-up"
    threads = "" if row.threads is None else f"{row.threads} thread{'s' * (row.threads > 1)}"
    beside = ", ".join(part for part in (row.note, threads, "" if row.ships else "baseline, not shipped") if part)
    return line(
        ("name", stacked(row.deployment, beside)),
        ("n", milliseconds(row.p50_ms)),
        ("n", " to ".join(low_high)),
        ("n", milliseconds(row.p90_ms)),
        ("n", milliseconds(row.p95_ms)),
        ("n", milliseconds(row.p99_ms)),
        ("n", speedup),
        ("n", milliseconds(row.load_ms)),
        ("n", megabytes(row.peak_memory_bytes)),
        ("n", stacked(count(row.timed_runs), warm_up)),
        ("", stacked(row.verdict or ABSENT, row.verdict_reason or "")),
        kind="" if row.ships else "baseline",
    )
