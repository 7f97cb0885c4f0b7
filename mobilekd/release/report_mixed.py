"""The report on mixed precision: what computes in float, who decided it, and the price."""

from mobilekd.quant_table import FloatOperator
from mobilekd.release.evidence import Evidence
from mobilekd.release.markup import NOTHING, Html, tag
from mobilekd.release.report_format import count, line, percent, points, table


def mixed_lede(evidence: Evidence) -> str:
    """Return what the section shows, in words, with the decision of max_top1_drop where there was one."""
    mixed = evidence.quantized.network.mixed
    told = "Operators of the trained network that do not compute from integers to integers."
    if mixed is None:
        return told
    allowed = f"max_top1_drop allows {100 * mixed.max_top1_drop:.2f} points of top-1 below the float student."
    if not mixed.layers:
        return f"{told} {allowed} Calibrated int8 holds it with every layer in int8."
    return f"{told} {allowed} These layers stay float so that it holds: {', '.join(mixed.layers)}."


def mixed_table(evidence: Evidence) -> Html:
    """Return top-1 before and after the decision, and its price; nothing where no layer was kept."""
    mixed = evidence.quantized.network.mixed
    if mixed is None or not mixed.layers:
        return NOTHING
    heads = (
        ("", "Calibrated, before training"),
        ("n", "Top-1"),
        ("n", "Against float student"),
        ("n", "Float layers"),
        ("n", "More bytes"),
        ("n", "MACs in float"),
    )
    rows = (
        ("int8", mixed.top1_int8, 0, 0, 0.0),
        ("mixed", mixed.top1_mixed, len(mixed.layers), mixed.extra_bytes, mixed.float_macs_share),
    )
    lines = (
        line(
            ("name", name),
            ("n", percent(top1)),
            ("n", points(top1 - mixed.top1_float)),
            ("n", count(layers)),
            ("n", count(extra)),
            ("n", percent(share)),
        )
        for name, top1, layers, extra, share in rows
    )
    return table(heads, lines)


def float_operator_table(evidence: Evidence) -> Html:
    """Return every float operator of the quantization table with its reason; decided ones stand open."""
    floats = evidence.table.float_operators
    if not floats:
        return NOTHING
    decided = [one for one in floats if one.is_decided]
    others = [one for one in floats if not one.is_decided]
    shown = _operators(decided) if decided else NOTHING
    if not others:
        return shown
    folded = tag("details", {}, tag("summary", {}, f"{len(others)} other float operators"), _operators(others))
    return tag("div", {}, shown, folded)


def _operators(floats: list[FloatOperator]) -> Html:
    heads = (("", "Writes"), ("", "Operator"), ("", "Why in float"))
    rows = (line(("mono", one.name), ("", one.operator), ("wrap", one.reason)) for one in floats)
    return table(heads, rows)
