"""All hostile cases in one folder, each verified once.

`python -m tests.release.hostile.arena` prints the table of docs/signing.md.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mobilekd.release.sign import sign_bundle
from mobilekd.release.signing_keys import read_private_key, write_key_pair

from . import archives, contents, signatures
from .site import Site

KINDS = {**archives.CASES, **contents.CASES, **signatures.CASES}
CASES = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}
Outcomes = dict[str, dict[str, Any]]


def build(arena: Path, built: Path) -> None:
    """Write every case below an empty folder, from the folder that holds a good bundle/ and bundle.zip."""
    good = arena / "good"
    good.mkdir()
    shutil.copyfile(built / "bundle.zip", good / "x.zip")
    shutil.copytree(built / "bundle", good / "bundle")
    for name in ("key", "other"):
        write_key_pair(arena / name, b"")
    key, other = (read_private_key(arena / name, b"") for name in ("key", "other"))
    sign_bundle(good / "x.zip", key)
    words = {}
    for index, (name, case) in enumerate(CASES.items()):
        (arena / f"{index}").mkdir()
        words[name] = case(Site(arena / f"{index}", good, key, other, arena / "key.pub"))
    (arena / "run/tmp").mkdir(parents=True)
    plan = {"good": [str(good / "x.zip"), "--key", str(arena / "key.pub")], "cases": words}
    (arena / "run/plan.json").write_text(json.dumps(plan))


def verify_all(arena: Path) -> Outcomes:
    """Return how the verification of each case ended."""
    subprocess.run(
        [sys.executable, "-m", "tests.release.hostile.runner", str(arena / "run/plan.json")],
        check=True,
        env=os.environ | {"TMPDIR": str(arena / "run/tmp"), "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    outcomes: Outcomes = json.loads((arena / "run/outcomes.json").read_text())
    return outcomes


def seen(arena: Path) -> list[tuple[str, int, int]]:
    """Return every file and folder but the runner's, with its size and time."""
    below = (path for path in arena.rglob("*") if path.relative_to(arena).parts[0] != "run")
    return sorted((ascii(str(path)), path.lstat().st_size, path.lstat().st_mtime_ns) for path in below)


def table(outcomes: Outcomes) -> str:
    """Return one line for each kind, and one for all."""
    lines = ["| kind | cases | refused | slowest (CPU) | most memory |", "|---|---|---|---|---|"]
    for kind, cases in {**KINDS, "all": dict.fromkeys(outcomes)}.items():
        ended = [outcomes[name if kind == "all" else f"{kind}: {name}"] for name in cases]
        refused = sum(one["code"] == 7 for one in ended)
        seconds, peak = (max(one[key] for one in ended) for key in ("seconds", "peak_bytes"))
        lines.append(f"| {kind} | {len(ended)} | {refused} | {seconds:.2f} s | {peak / 1e6:.0f} MB |")
    return "\n".join(lines)


if __name__ == "__main__":
    from tests.release.workshop import Workshop

    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "arena").mkdir()
        build(Path(scratch) / "arena", Workshop(Path(scratch) / "work").bundle())
        print(table(verify_all(Path(scratch) / "arena")))
