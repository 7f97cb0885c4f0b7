"""Keys and signatures that were made, on stdout."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.console import print_json

if TYPE_CHECKING:
    from mobilekd.release.sign import SignReport
    from mobilekd.release.signing_keys import PublicKey


def show_key(private: Path, public: "PublicKey", *, as_json: bool) -> None:
    """Show where a new key pair lies, and its id."""
    if as_json:
        print_json({"private": str(private), "public": str(public.path), "keyid": public.keyid})
        return
    print(f"keyid    {public.keyid}")
    print(f"private  {private}: keep it; who has it signs as you")
    print(f"public   {public.path}: give it to who verifies")


def show_signature(report: "SignReport", *, as_json: bool) -> None:
    """Show what was signed, and where the signature is."""
    if as_json:
        print_json(report.to_json())
        return
    print(f"signed   bundle {report.digest}: its archive (sha256 {report.archive}) and {report.files} files")
    print(f"keyid    {report.keyid}")
    print(f"file     {report.file}")
    if report.openssf:
        print(f"openssf  {report.openssf}")
