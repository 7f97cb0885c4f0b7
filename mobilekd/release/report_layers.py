"""The report on layers: what each of them costs, folded away for each model."""

from mobilekd.release.evidence import Evidence, LatencyRow, LayerRow
from mobilekd.release.markup import Html, tag
from mobilekd.release.report_format import count, line, milliseconds, percent, series, table
from mobilekd.release.report_plots import bar_lane


def layer_tables(evidence: Evidence) -> tuple[Html, ...]:
    """Return a folded table for each model that was divided into layers; bars are of the most expensive layer."""
    return tuple(_folded(row) for row in evidence.latency.rows if row.layers)


def _folded(row: LatencyRow) -> Html:
    counted = row.layers[0].instructions is not None
    most = max(one.share for one in row.layers)
    heads = (("", "Layer"), ("", "Operator"), ("n", "Instructions" if counted else "ms"), ("n", "Share"), ("plot", ""))
    told = f"{row.deployment}: what each of {len(row.layers)} layers costs"
    lines = (_line(one, most, series(row.precision)) for one in row.layers)
    return tag("details", {}, tag("summary", {}, told), table(heads, lines))


def _line(layer: LayerRow, most: float, kind: str) -> Html:
    cost = milliseconds(layer.ms) if layer.instructions is None else count(layer.instructions)
    return line(
        ("mono", layer.name),
        ("", layer.operator),
        ("n", cost),
        ("n", percent(layer.share)),
        ("plot", bar_lane(layer.share / most, kind)),
    )
