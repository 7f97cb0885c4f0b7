"""What was written for an app, on stdout."""

from typing import TYPE_CHECKING

from mobilekd.console import print_json, print_table

if TYPE_CHECKING:
    from mobilekd.release.app.writing import App


def show_app(app: "App", *, as_json: bool) -> None:
    """Show the directory, the models of the AI pack, and the code for each model."""
    if as_json:
        print_json(app.to_json())
        return
    groups = {deployment: group or "all devices" for group, deployment in app.variants}
    rows = [(name, groups.get(name, "-"), ", ".join(files)) for name, files in app.code.items()]
    rows += [(name, "-", "none") for name in app.without_code]
    print_table(("model", f"AI pack {app.pack}", "code"), rows)
    print(f"\n{app.folder}/README.md says how to use it. AI pack: layout checked, Gradle not run.")
