"""The commands on devices: where profiles are measured, preparing an emulator, and what is missing."""

from typing import Annotated

import typer

from mobilekd.errors import MissingToolError
from mobilekd.options import JsonOption, SetOption, overrides_of
from mobilekd.paths import devices_folder
from mobilekd.workplace import watched

_DEFAULT_PROFILE = "android-arm64"

devices_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Devices and emulators that models are measured on."
)
_ProfileOption = Annotated[
    str, typer.Option("--profile", metavar="NAME", help="For which profile: name or .toml file.")
]


@devices_app.command("list")
def devices_list(
    *,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", metavar="NAME", help="Name or .toml file, repeatable; all that ship."),
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each profile would be measured on now, and which devices are attached."""
    from mobilekd import config, devices, show_devices

    overrides = overrides_of(set_, None, skip_bad_images=False)
    names = profile or config.shipped_names("devices")
    with watched():
        survey = devices.survey([config.load_profile(name, overrides) for name in names])
    show_devices.show_survey(survey, as_json=as_json)


@devices_app.command("setup")
def devices_setup(
    *,
    profile: _ProfileOption = _DEFAULT_PROFILE,
    vm: Annotated[
        bool, typer.Option("--vm/--no-vm", help="Make the arm64 virtual machine, too, and boot it once.")
    ] = False,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare the emulator or the browser of a profile, without root; what is there already is kept."""
    from mobilekd import config, device_setup, show_devices, web_setup

    target = config.load_profile(profile, overrides_of(set_, None, skip_bad_images=False))
    with watched() as console:
        if target.device.transport == "web" and not vm:
            steps = web_setup.setup(target, devices_folder(), console)
        else:
            steps = device_setup.setup(target, devices_folder(), console, with_machine=vm)
    show_devices.show_setup(target.name, steps, as_json=as_json)


@devices_app.command("doctor")
def devices_doctor(
    *, profile: _ProfileOption = _DEFAULT_PROFILE, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """Show every piece that measuring for a profile takes, and how to mend what is missing."""
    from mobilekd import config, device_doctor, device_tools, show_devices

    target = config.load_profile(profile, overrides_of(set_, None, skip_bad_images=False))
    with watched():
        checks = device_doctor.examine(target, devices_folder())
    show_devices.show_device_checks(checks, as_json=as_json)
    if broken := [one for one in checks if one.is_needed and not one.is_ok]:
        names = ", ".join(one.name for one in broken)
        raise MissingToolError(
            f"{target.name} can't be measured as its profile asks: {names}",
            hint=device_tools.remedy(broken),
            code="MKD-304",
        )
