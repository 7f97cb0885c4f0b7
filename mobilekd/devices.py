"""Where each profile would be measured now, and which devices this host reaches."""

from collections.abc import Sequence
from dataclasses import dataclass

from mobilekd.benchmarking.place import Place, choose
from mobilekd.errors import DeviceError, MissingToolError, MobilekdError
from mobilekd.plugins import TRANSPORTS
from mobilekd.profile import Profile
from mobilekd.transport import LatencyKind
from mobilekd.transports import adb, ssh

READY = "ready"


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a profile's models would be measured now.

    Attributes:
        profile: As it was read.
        place: None where none can be had.
        reason, mend: Then why, and what to do; else empty.
    """

    profile: Profile
    place: Place | None
    reason: str = ""
    mend: str = ""

    @property
    def trouble(self) -> str:
        """Return the reason and what to do."""
        return f"{self.reason} ({self.mend})" if self.mend else self.reason

    @property
    def latency_kind(self) -> LatencyKind | None:
        """Return what the numbers of that place are."""
        if self.place is None:
            return None
        kind: LatencyKind = TRANSPORTS.load(self.place.transport).latency_kind
        return kind


@dataclass(frozen=True, slots=True)
class Reached:
    """One device of this host.

    Attributes:
        transport: "adb" or "ssh".
        name: Serial, or host.
        state: READY, or what is wrong with it.
        mend: What to do about that.
    """

    transport: str
    name: str
    state: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What `mobilekd devices list` shows; `notes` says why a kind of device could not be looked for."""

    outlooks: tuple[Outlook, ...]
    reached: tuple[Reached, ...]
    notes: tuple[str, ...]


def survey(profiles: Sequence[Profile]) -> Survey:
    """Return where each profile would be measured, every device that adb knows and every board that a profile names.

    Nothing is pushed or run. What is wrong with one profile or device stands in its line.
    """
    outlooks = tuple(outlook(profile) for profile in profiles)
    phones, notes = _phones()
    return Survey(outlooks, (*phones, *_boards(outlooks)), notes)


def outlook(profile: Profile) -> Outlook:
    """Return where a profile's models would be measured."""
    try:
        return Outlook(profile, choose(profile))
    except (DeviceError, MissingToolError) as trouble:
        return Outlook(profile, None, trouble.message, trouble.hint)


def _phones() -> tuple[tuple[Reached, ...], tuple[str, ...]]:
    try:
        states = adb.attached()
    except (DeviceError, MissingToolError) as trouble:
        return (), (f"phones were not looked for: {_told(trouble)}",)
    return tuple(_phone(serial, state) for serial, state in states.items()), ()


def _phone(serial: str, state: str) -> Reached:
    if state == "device":
        return Reached("adb", serial, READY)
    return Reached("adb", serial, *adb.said_of(state))


def _boards(outlooks: Sequence[Outlook]) -> tuple[Reached, ...]:
    named = [one for one in outlooks if one.profile.device.transport == "ssh" and one.profile.device.host]
    # `choose` has asked those that it took or refused; another answer takes up to ten seconds.
    asked = {one.profile.device.host: one for one in named if one.profile.device.place in {"auto", "device"}}
    hosts = dict.fromkeys(one.profile.device.host for one in named)
    return tuple(_asked(host, asked[host]) if host in asked else _board(host) for host in hosts)


def _asked(host: str, outlook: Outlook) -> Reached:
    return Reached("ssh", host, READY) if outlook.place else Reached("ssh", host, outlook.reason, outlook.mend)


def _board(host: str) -> Reached:
    try:
        ssh.check_reachable(host)
    except (DeviceError, MissingToolError) as trouble:
        return Reached("ssh", host, trouble.message, trouble.hint)
    return Reached("ssh", host, READY)


def _told(trouble: MobilekdError) -> str:
    return f"{trouble.message} ({trouble.hint})" if trouble.hint else trouble.message
