"""The head of the report: the verdict, and four figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from mobilekd.release.evidence import Evidence, ParityRow
from mobilekd.release.markup import Html, tag
from mobilekd.release.report_accuracy import first_rows, size_ratio
from mobilekd.release.report_format import ABSENT, megabytes, milliseconds, percent, points

_PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure: what it is, its value, and what it is to be compared with."""

    name: str
    value: str
    detail: str


def verdict(evidence: Evidence, over_budget: Sequence[str]) -> Html:
    """Return one sentence: is this fit to ship, and on how many of the models does that stand."""
    shipped = [row for row in evidence.parity.rows if row.ships]
    names = dict.fromkeys(row.deployment for row in shipped)
    failed = {row.deployment for row in shipped if row.status == "failed"}
    passed = [name for name in names if all(row.status == _PASSED for row in shipped if row.deployment == name)]
    images = f"{evidence.parity.images:,} test images"
    unrun = sum(row.status == "built, not run" for row in first_rows(shipped))
    rest = f"; {unrun} built, not run" if unrun else ""
    told = f"{len(passed)} of {len(names)} models proved equal to the trained network on {images}{rest}"
    if failed:
        kind, word = "bad", "Parity failed"
    elif over_budget:
        kind, word = "warn", "Over budget"
    elif not passed:
        kind, word = "warn", "Nothing proved"
    else:
        kind, word = "good", "Passed"
    return tag("p", {"class": "verdict"}, tag("b", {"class": f"status {kind}"}, word), f". {told}.")


def proved_tiles(evidence: Evidence) -> tuple[Tile, ...]:
    """Return the figures that parity has proved."""
    rows = [row for row in first_rows(evidence.parity.rows) if row.ships]
    teacher = evidence.teacher.metrics.top1_test
    return _top1_tile(rows, teacher), _agreement_tile(rows, evidence.parity.images), _size_tile(evidence, rows)


def _top1_tile(rows: Sequence[ParityRow], teacher: float) -> Tile:
    known = [row.top1_deployed for row in rows if row.top1_deployed is not None]
    if not known:
        return Tile("Top-1, lowest shipped", ABSENT, f"teacher {percent(teacher)}")
    return Tile(
        "Top-1, lowest shipped",
        percent(min(known)),
        f"teacher {percent(teacher)}, {points(min(known) - teacher)} points",
    )


def _agreement_tile(rows: Sequence[ParityRow], images: int) -> Tile:
    known = [row.top1_agreement for row in rows if row.top1_agreement is not None]
    return Tile(
        "Agreement, lowest", percent(min(known, default=None)), f"same answer as the trained network, {images:,} images"
    )


def _size_tile(evidence: Evidence, rows: Sequence[ParityRow]) -> Tile:
    known = [row for row in rows if row.bytes is not None]
    if not known:
        return Tile("Largest model", ABSENT, "")
    largest = max(known, key=lambda row: row.bytes or 0)
    fp32 = {row.backend: row.bytes for row in evidence.parity.rows if row.precision == "fp32"}
    ratio = size_ratio(largest, fp32.get(largest.backend))
    share = "" if ratio == ABSENT else f", {ratio} its fp32"
    return Tile("Largest model", megabytes(largest.bytes), f"{largest.deployment}{share}")


def float_layers_tile(evidence: Evidence) -> Tile:
    """Return how many layers of the int8 models compute in float."""
    known = [
        row.float_ops
        for row in evidence.parity.rows
        if row.ships and row.precision == "int8" and row.float_ops is not None
    ]
    value = str(max(known)) if known else ABSENT
    decided = max((len(row.decided_float_ops) for row in evidence.parity.rows), default=0)
    told = f", {decided} of them by decision" if decided else ""
    return Tile("Layers left in float", value, f"convolution, linear, matmul; most in an int8 model{told}")


def latency_tile(evidence: Evidence) -> Tile:
    """Return the fastest median, and where it was measured."""
    latency = evidence.latency
    counted = [row for row in latency.rows if row.ships and row.guest_instructions is not None]
    if counted:
        cheapest = min(counted, key=lambda row: row.guest_instructions.total if row.guest_instructions else 0)
        total = cheapest.guest_instructions.total if cheapest.guest_instructions else 0
        return Tile("Fewest instructions", f"{total / 1e6:.2f} M", f"{cheapest.deployment}, {latency.ran_on}")
    known = [row for row in latency.rows if row.ships and row.p50_ms is not None]
    place = "on the target" if latency.on_target else latency.ran_on
    if not known:
        return Tile("Fastest median", ABSENT, place)
    fastest = min(known, key=lambda row: row.p50_ms or 0.0)
    return Tile("Fastest median", f"{milliseconds(fastest.p50_ms)} ms", f"{fastest.deployment}, {place}")


def tile_row(tiles: Sequence[Tile]) -> Html:
    """Return the key figures side by side."""
    cells = (
        tag("div", {}, tag("dt", {}, one.name), tag("dd", {}, one.value, tag("small", {}, one.detail))) for one in tiles
    )
    return tag("dl", {"class": "tiles"}, *cells)
