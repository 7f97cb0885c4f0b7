"""The report on where a bundle comes from: the command, what came from outside, and the tools."""

from mobilekd.release.markup import NOTHING, Html, tag
from mobilekd.release.provenance import PROVENANCE, Provenance
from mobilekd.release.report_format import line, table


def provenance_parts(provenance: Provenance) -> tuple[Html, ...]:
    """Return the command that repeats the build, and two tables that fold away."""
    command = provenance.asked.command
    repeat = tag("p", {}, "Builds the same bytes again: ", tag("code", {}, command)) if command else NOTHING
    digests = [*provenance.dependencies.items(), *((f"made by {one}", sha) for one, sha in provenance.made.items())]
    return (
        repeat,
        _folded(f"{len(digests)} digests of what came in and was made", ("What", "sha256"), digests),
        _folded(f"{len(provenance.tools)} tools", ("Tool", "Version"), sorted(provenance.tools.items())),
        tag("p", {"class": "muted"}, f"All of it stands in {PROVENANCE}, as a SLSA v1 predicate."),
    )


def _folded(title: str, heads: tuple[str, str], rows: list[tuple[str, str]]) -> Html:
    cells = (line(("", name), ("mono", value)) for name, value in rows)
    return tag("details", {}, tag("summary", {}, title), table(tuple(("", one) for one in heads), cells))
