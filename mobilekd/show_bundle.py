"""What a bundle says of itself, on stdout."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mobilekd.console import print_json, print_table
from mobilekd.units import number, percent, printable, readable_bytes

if TYPE_CHECKING:
    from mobilekd.release.bundle import VerifyReport
    from mobilekd.release.signature import SignatureReport

Row = Mapping[str, Any]


def show_bundle(document: Row, *, as_json: bool) -> None:
    """Show what `release.bundle.inspect` found: what it is, what it is worth, what is in it, what was not measured."""
    if as_json:
        print_json(document)
        return
    profile, dataset, measured = document["profile"], document["dataset"], document["measurements"]
    images = ", ".join(f"{count} {split}" for split, count in dataset["splits"].items())
    _print_facts(
        {
            "digest": document["digest"],
            "pipeline": document["pipeline"],
            "profile": f"{profile['name']}: {profile['title']}",
            "data": f"{dataset['name']}: {images}; {len(document['labels'])} labels",
            "measured": f"{measured['measured'][:10]} on {measured['ran_on']}",
        }
    )
    trained = [(one["role"], one["network"], percent(one["top1_test"])) for one in document["accuracy"]]
    print_table(("trained", "network", "top-1"), trained)
    print()
    print_table(("model", "file", "bytes", "input", "output", "note"), [_model(one) for one in document["models"]])
    print()
    show_parity(document["parity"], as_json=False)
    for title in ("over_budget", "not_measured"):
        for line in document[title]:
            print(f"{title.replace('_', ' ')}: {printable(line)}")


def show_parity(rows: Sequence[Row], *, as_json: bool) -> None:
    """Show how deployed models compare with the one that was trained."""
    if as_json:
        print_json({"parity": list(rows)})
        return
    cells = [
        (
            str(row["deployment"]),
            str(row.get("kernels") or "-"),
            str(row["status"]),
            percent(row.get("top1_reference")),
            percent(row.get("top1_deployed")),
            percent(row.get("top1_agreement")),
            number(row.get("max_error_steps")),
            number(row.get("float_ops")),
        )
        for row in rows
    ]
    heads = ("model", "kernels", "parity", "top-1 trained", "deployed", "agreement", "max error (steps)", "float ops")
    print_table(heads, cells)


def show_verification(report: "VerifyReport", *, as_json: bool) -> None:
    """Show what was checked of a bundle."""
    if as_json:
        print_json(report.to_json())
        return
    _print_facts(
        {
            "digest": report.digest,
            "signature": _signature(report.signature),
            "files": f"{len(report.files)}, each with the digest that its manifest gives",
        }
    )
    for rerun in report.reruns:
        steps = f"{rerun.max_error_steps:.3g} steps off"
        print(printable(f"{rerun.deployment}: answers as it did where it was built ({steps})"))
    for name, reason in report.not_run:
        print(printable(f"{name}: not run: {reason}"))


def _signature(report: "SignatureReport") -> str:
    if report.state == "none":
        return f"none: there is no {report.file}; digests find damage, not who built it"
    if report.state == "not checked":
        return f"not checked: {report.file} says keyid {report.keyid}; give the signer's --key"
    return f"keyid {report.keyid} ({report.key}) signed every file"


def _model(model: Row) -> tuple[str, ...]:
    return (
        str(model["deployment"]),
        str(model["file"]),
        readable_bytes(model["bytes"]),
        _tensor(model["input"]),
        _tensor(model["output"]),
        str(model["note"]),
    )


def _tensor(tensor: Row) -> str:
    return f"{tensor['dtype']} {'x'.join(map(str, tensor['shape']))} {tensor['layout']}"


def _print_facts(facts: Mapping[str, str]) -> None:
    for name, fact in facts.items():
        print(f"{name:<9} {printable(fact)}")
    print()
