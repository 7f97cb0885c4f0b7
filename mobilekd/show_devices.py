"""What `mobilekd devices` found, on stdout."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mobilekd.console import print_json, print_table

if TYPE_CHECKING:
    from mobilekd.devices import Outlook, Survey
    from mobilekd.doctor import Check
    from mobilekd.profile import Target
    from mobilekd.setup_steps import Step

_KINDS = {"wall": "wall ms", "guest_instructions": "guest instructions", None: "-"}


def show_survey(survey: "Survey", *, as_json: bool) -> None:
    """Show where each profile would be measured, then the devices."""
    if as_json:
        devices = [asdict(one) for one in survey.reached]
        profiles = [_outlook_json(one) for one in survey.outlooks]
        print_json({"profiles": profiles, "devices": devices, "notes": list(survey.notes)})
        return
    heads = ("profile", "target", "measured on", "numbers", "why not a device")
    print_table(heads, [_outlook_cells(one) for one in survey.outlooks])
    print()
    if survey.reached:
        rows = [(one.transport, one.name, one.state, one.mend) for one in survey.reached]
        print_table(("reached by", "device", "state", "to mend"), rows)
    else:
        print("no device is attached, and no profile names a board")
    for note in survey.notes:
        print(f"note: {note}")


def show_setup(profile: str, steps: "Sequence[Step]", *, as_json: bool) -> None:
    """Show the steps of a setup with their times."""
    seconds = round(sum(step.seconds for step in steps), 2)
    if as_json:
        print_json({"profile": profile, "seconds": seconds, "steps": [asdict(step) for step in steps]})
        return
    rows = [(step.name, step.state, f"{step.seconds:.1f} s", step.detail) for step in steps]
    print_table(("step", "state", "took", "where"), rows)
    print(f"\nwhat {profile} is measured on is ready after {seconds:.1f} s")


def show_device_checks(checks: "Sequence[Check]", *, as_json: bool) -> None:
    """Show the pieces; those that the profile can't be measured without are marked."""
    if as_json:
        print_json({"checks": [asdict(one) for one in checks]})
        return
    rows = [
        (one.area, one.name, "yes" if one.is_needed else "", "ok" if one.is_ok else "missing", one.detail, one.mend)
        for one in checks
    ]
    print_table(("area", "what", "needed", "state", "detail", "to mend"), rows)


def _outlook_json(one: "Outlook") -> dict[str, Any]:
    profile = one.profile
    return {
        "name": profile.name,
        "title": profile.title,
        "target": profile.target.model_dump(),
        "place": None if one.place is None else asdict(one.place),
        "latency_kind": one.latency_kind,
        "trouble": one.trouble or None,
    }


def _outlook_cells(one: "Outlook") -> tuple[str, ...]:
    target = _target(one.profile.target)
    if one.place is None:
        return one.profile.name, target, "nowhere", "-", one.trouble
    name = "" if one.place.kind == "emulator" else f": {one.place.name}" if one.place.kind == "host" else ""
    return one.profile.name, target, one.place.told + name, _KINDS[one.latency_kind], one.place.why


def _target(target: "Target") -> str:
    return " ".join(filter(None, (target.os, target.abi, target.chip)))
