"""What `mobilekd init` saw, on stderr: a short table, what looks wrong, and the next commands."""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mobilekd.console import print_json
from mobilekd.first_look import COMPARED, FirstLook, Machine
from mobilekd.first_options import UNEVEN, FirstOptions
from mobilekd.units import readable_bytes

_NAMED = 3


def show_first_look(look: FirstLook, machine: Machine, options: FirstOptions, out: Path, *, as_json: bool) -> None:
    """Print the name of the file on stdout, or with --json what was seen; for people, a table on stderr."""
    if as_json:
        print_json(_document(look, machine, options, out))
        return
    for name, value in _rows(look, machine, options):
        print(f"{name:<10} {value}", file=sys.stderr)
    for warning in warnings(look):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"next: mobilekd plan --pipeline {out}", file=sys.stderr)
    print(f"      mobilekd build --pipeline {out}", file=sys.stderr)
    print(out)


def warnings(look: FirstLook) -> Iterable[str]:
    """Give what should be mended before a long training."""
    if look.unreadable:
        yield f"{_named(look.unreadable, 'image')} can't be read; skip_bad_images = true leaves them out"
    if look.same_bytes:
        among = f" of the first {COMPARED} of one name" if len(look.in_both) > COMPARED else ""
        yield f"{_named(look.in_both, 'name')} in train/ and in val/, {look.same_bytes}{among} with the same bytes"
    if look.imbalance > UNEVEN:
        yield f'classes are uneven, {look.imbalance:.1f} to 1; sampling = "balanced" is set'
    if few := [name for name, count in zip(look.classes, look.train_counts, strict=True) if count < 20]:
        yield f"{_named(few, 'class')} with fewer than 20 images: accuracy will be a matter of luck"


def _rows(look: FirstLook, machine: Machine, options: FirstOptions) -> Iterable[tuple[str, str]]:
    train, test = sum(look.train_counts), sum(look.test_counts)
    held_out = (
        f"; {options.test_share.value:g} of each class is held out to test on" if options.test_share.value else ""
    )
    yield "images", f"{train:,} to train on, {test:,} to test with{held_out}" if test else f"{train:,}{held_out}"
    yield "classes", f"{len(look.classes)}: {_counted(look)}"
    least, median, most = look.sides
    yield "size", f"shorter side {least} to {most} px, median {median}; taken: {options.image_size.value} px"
    yield "pixels", ", ".join(f"{mode} {count:,}" for mode, count in look.modes.items())
    if look.opened:
        yield "looked at", f"the headers of {look.opened:,} files, the pixels of {look.decoded:,}"
    yield "machine", f"{machine.cores} cores, {readable_bytes(machine.memory_bytes)}, {machine.gpu or 'no GPU'}"
    disk, free = readable_bytes(2 * options.disk_bytes), readable_bytes(machine.free_disk_bytes)
    yield "needs", f"{disk} of disk ({free} free), about {readable_bytes(options.memory_bytes)} of memory"
    yield "networks", f"{options.networks.teacher} teaches {options.networks.student}"


def _counted(look: FirstLook) -> str:
    named = [f"{name} {count:,}" for name, count in zip(look.classes, look.train_counts, strict=True)]
    return ", ".join(named if len(named) <= 2 * _NAMED else [*named[:_NAMED], "...", *named[-_NAMED:]])


def _named(what: Iterable[str], noun: str) -> str:
    names = list(what)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    plural = noun if len(names) == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{len(names)} {plural} ({', '.join(names[:_NAMED])}{more})"


def _document(look: FirstLook, machine: Machine, options: FirstOptions, out: Path) -> dict[str, Any]:
    counts = [dict(zip(look.classes, counts, strict=False)) for counts in (look.train_counts, look.test_counts)]
    seen = asdict(look) | {"path": str(look.path), "classes": list(look.classes), "imbalance": round(look.imbalance, 3)}
    seen |= {
        "train_counts": counts[0],
        "test_counts": counts[1],
        "sides": dict(zip(("least", "median", "most"), look.sides, strict=True)),
    }
    chosen = {
        key: {"value": value["value"], "why": value["why"]}
        for key, value in asdict(options).items()
        if isinstance(value, dict) and "why" in value
    }
    networks = {"teacher": options.networks.teacher, "student": options.networks.student, "why": options.networks_why}
    return {
        "schema": "mobilekd.first_look/1",
        "pipeline": str(out),
        "images": seen,
        "machine": asdict(machine),
        "options": chosen,
        "networks": networks,
        "disk_bytes": 2 * options.disk_bytes,
        "memory_bytes": options.memory_bytes,
        "warnings": list(warnings(look)),
    }
