"""The report on what lies in the bundle: models, tensors, files, licences."""

from collections.abc import Iterable

from mobilekd.backend import TensorFacts
from mobilekd.release.evidence import Evidence
from mobilekd.release.manifest import FileEntry, Licence, Manifest, ModelEntry
from mobilekd.release.markup import NOTHING, Html, join, tag
from mobilekd.release.report_format import ABSENT, count, line, stacked, table


def tensor_table(evidence: Evidence) -> Html:
    """Return the quantization table: smallest and largest scale of every tensor."""
    heads = (("", "Tensor"), ("", "Role"), ("", "Type"), ("n", "Scale, smallest"), ("n", "Largest"), ("n", "Channels"))
    rows = (
        line(
            ("mono", tensor.name),
            ("", tensor.role),
            ("", tensor.dtype),
            ("n", f"{min(tensor.scale):.6g}"),
            ("n", f"{max(tensor.scale):.6g}"),
            ("n", ABSENT if tensor.axis is None else count(len(tensor.scale))),
        )
        for tensor in evidence.table.tensors
    )
    return table(heads, rows)


def model_table(manifest: Manifest) -> Html:
    """Return how an app feeds and reads every model, and how it was made."""
    heads = (("", "Model"), ("", "Input"), ("", "Output"), ("", "Made by"))
    return table(heads, map(_model_row, manifest.models))


def _model_row(model: ModelEntry) -> Html:
    tools = ", ".join(f"{name} {version}" for name, version in sorted(model.tools.items()))
    command = tag("code", {}, model.build_command) if model.build_command else NOTHING
    return line(
        ("name", stacked(model.deployment, model.file)),
        ("", _tensor(model.input)),
        ("", _tensor(model.output)),
        ("wrap", join((tools or ABSENT, tag("small", {}, model.note) if model.note else NOTHING, command))),
    )


def _tensor(facts: TensorFacts) -> Html:
    shape = " × ".join(map(str, facts.shape))
    scale = "" if facts.scale is None else f", scale {facts.scale:.6g}, zero point {facts.zero_point}"
    return stacked(facts.name, f"{facts.dtype} {facts.layout} {shape}{scale}")


def file_table(files: Iterable[FileEntry]) -> Html:
    """Return the digests."""
    heads = (("", "File"), ("n", "Bytes"), ("", "sha256"))
    rows = (line(("mono", one.path), ("n", count(one.bytes)), ("mono", one.sha256)) for one in files)
    return table(heads, rows)


def licence_list(licences: Iterable[Licence]) -> Html:
    """Return the licences as pairs."""
    pairs = (join((tag("dt", {}, one.covers), tag("dd", {}, one.licence))) for one in licences)
    return tag("dl", {"class": "facts"}, *pairs)
