"""The report on what was proved: accuracy, parity, size."""

from collections.abc import Iterable
from dataclasses import dataclass

from mobilekd.release.axis import linear_axis
from mobilekd.release.evidence import Evidence, ParityRow
from mobilekd.release.markup import Html, tag
from mobilekd.release.report_format import (
    ABSENT,
    count,
    line,
    megabytes,
    number,
    percent,
    points,
    series,
    stacked,
    table,
)
from mobilekd.release.report_plots import bar_lane, dot_lane, tick_row

_STATUS_CLASS = {"passed": "good", "failed": "bad"}


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    detail: str
    top1: float
    kind: str


def first_rows(rows: Iterable[ParityRow]) -> list[ParityRow]:
    """Return one row per deployment: that of the kernels that apps use by default."""
    kept: dict[str, ParityRow] = {}
    for row in rows:
        kept.setdefault(row.deployment, row)
    return list(kept.values())


def accuracy_ladder(evidence: Evidence) -> Html:
    """Return top-1 from the teacher down to each deployed model, as a dot plot with its numbers."""
    teacher = evidence.teacher.metrics.top1_test
    deployed = [row for row in first_rows(evidence.parity.rows) if row.top1_deployed is not None]
    steps = [_Step(one.role, one.network.network, one.metrics.top1_test, "plain") for one in evidence.trained]
    steps += [_Step(row.deployment, _beside(row), row.top1_deployed or 0.0, series(row.precision)) for row in deployed]
    axis = linear_axis((100 * step.top1 for step in steps), least_span=1.0)
    heads = (
        ("", "Model"),
        ("n", "Top-1"),
        ("n", "Against teacher"),
        ("plot", tick_row(axis, " %")),
    )
    rows = (
        line(
            ("name", stacked(step.name, step.detail)),
            ("n", percent(step.top1)),
            ("n", points(step.top1 - teacher)),
            ("plot", dot_lane(axis, 100 * step.top1, 100 * teacher, step.kind)),
        )
        for step in steps
    )
    return table(heads, rows)


def parity_table(evidence: Evidence) -> Html:
    """Return how near every deployed model is to the network that was trained."""
    heads = (
        ("", "Deployment"),
        ("", "Status"),
        ("n", "Images"),
        ("n", "Top-1 trained"),
        ("n", "Top-1 deployed"),
        ("n", "Agreement"),
        ("n", "Max error"),
        ("n", "Mean error"),
        ("n", "Float layers"),
        ("", "Other float operators"),
    )
    return table(heads, (_parity_row(row) for row in evidence.parity.rows))


def _parity_row(row: ParityRow) -> Html:
    status = tag("span", {"class": f"status {_STATUS_CLASS.get(row.status, 'warn')}"}, row.status)
    return line(
        ("name", stacked(row.deployment, _beside(row))),
        ("wrap" if row.note else "", stacked(status, row.note.removeprefix(f"{row.status}: "))),
        ("n", count(row.images or None)),
        ("n", percent(row.top1_reference)),
        ("n", percent(row.top1_deployed)),
        ("n", percent(row.top1_agreement)),
        ("n", number(row.max_error_steps)),
        ("n", number(row.mean_error_steps, 3)),
        ("n", stacked(count(row.float_ops), ", ".join(row.float_op_names))),
        ("wrap" if row.other_float_ops else "", ", ".join(row.other_float_ops) or ABSENT),
        kind="" if row.ships else "baseline",
    )


def _beside(row: ParityRow) -> str:
    """Return what tells rows of one backend apart: the kernels, and that a baseline stays at home."""
    return ", ".join(part for part in (row.kernels or "", "" if row.ships else "baseline, not shipped") if part)


def size_chart(evidence: Evidence) -> Html:
    """Return the bytes of every model, with int8 as a share of the fp32 model of the same backend."""
    rows = [row for row in first_rows(evidence.parity.rows) if row.bytes]
    longest = max((row.bytes or 0 for row in rows), default=1)
    fp32 = {row.backend: row.bytes for row in rows if row.precision == "fp32"}
    heads = (("", "Model"), ("n", "Size"), ("n", "Share of fp32"), ("plot", ""))
    lines = (
        line(
            ("name", row.deployment),
            ("n", stacked(megabytes(row.bytes), f"{count(row.bytes)} bytes")),
            ("n", size_ratio(row, fp32.get(row.backend))),
            ("plot", bar_lane((row.bytes or 0) / longest, series(row.precision))),
            kind="" if row.ships else "baseline",
        )
        for row in sorted(rows, key=lambda row: (row.backend, row.bytes))
    )
    return table(heads, lines)


def size_ratio(row: ParityRow, fp32_bytes: int | None) -> str:
    """Return how many times the fp32 model a model is, as "0.27 ×"."""
    if row.bytes is None or not fp32_bytes or row.precision == "fp32":
        return ABSENT
    return f"{row.bytes / fp32_bytes:.3f} ×"
