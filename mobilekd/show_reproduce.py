"""How a bundle that was built again compares, on stdout."""

from typing import TYPE_CHECKING

from mobilekd.console import print_json, print_table

if TYPE_CHECKING:
    from mobilekd.reproduce import Reproduction


def show_reproduction(found: "Reproduction", *, as_json: bool) -> None:
    """Show each file with its verdict, and both digests."""
    if as_json:
        print_json(found.to_json())
        return
    print_table(("file", "built again"), list(found.files.items()))
    print()
    same = sum(verdict == "same" for verdict in found.files.values())
    print(f"digest    {found.digest}\nagain     {found.rebuilt} ({'the same' if found.is_same else 'another'})")
    print(f"files     {same} of {len(found.files)} the same; measurements are not compared")
    if found.stage:
        print(f"stage     {found.stage} is the first that made something else")
    if found.reused:
        print(f"reused    {', '.join(found.reused)}: from the cache that was given, not built again")
    print(f"seconds   {found.seconds:.0f}")
