"""How long and in how much memory a signed bundle of a given size verifies, as a whole process.

python benchmarks/verify_time.py BUNDLE_FOLDER [--megabytes 20] [--runs 5]

The bundle's first model is filled up with random bytes until the archive has the size, and all digests are made again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mobilekd.release.archive import write_archive
from mobilekd.release.manifest import (
    MANIFEST,
    MEASUREMENTS_MANIFEST,
    digest_text,
    file_entries,
    manifest_text,
    parse_manifest,
    parse_measurements,
    sealed,
)
from mobilekd.release.sign import sign_bundle
from mobilekd.release.signing_keys import read_private_key, write_key_pair


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folder = shutil.copytree(words.bundle, root / "bundle")
        grow(folder, words.megabytes * 1_000_000)
        write_archive(folder, root / "x.zip")
        write_key_pair(root / "key", b"")
        sign_bundle(root / "x.zip", read_private_key(root / "key", b""))
        runs = [verified(root) for _ in range(words.runs)]
        size = (root / "x.zip").stat().st_size
    print(
        json.dumps(
            {
                "archive_bytes": size,
                "wall_s": round(statistics.median(wall for wall, _, _ in runs), 3),
                "cpu_s": round(statistics.median(cpu for _, cpu, _ in runs), 3),
                "peak_bytes": max(peak for _, _, peak in runs),
                "load_average": os.getloadavg()[0],
            },
            indent=2,
        )
    )


def grow(folder: Path, size: int) -> None:
    """Fill the first model up until all files have so many bytes, and make the manifests fit."""
    manifest = parse_manifest((folder / MANIFEST).read_bytes(), MANIFEST)
    measurements = parse_measurements((folder / MEASUREMENTS_MANIFEST).read_bytes(), MEASUREMENTS_MANIFEST)
    missing = size - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with (folder / manifest.models[0].file).open("ab") as stream:
        for _ in range(0, missing, 1_000_000):  # in pieces: a child's peak memory starts from its parent's
            stream.write(os.urandom(1_000_000))
    grown = manifest.model_copy(update={"files": file_entries(folder, [entry.path for entry in manifest.files])})
    (folder / MANIFEST).write_text(manifest_text(grown))
    fitting = measurements.model_copy(update={"bundle": digest_text(manifest_text(grown))})
    (folder / MEASUREMENTS_MANIFEST).write_text(manifest_text(sealed(fitting)))


def verified(root: Path) -> tuple[float, float, int]:
    """Return wall seconds, CPU seconds and peak memory of one verification."""
    command = [sys.executable, "-m", "mobilekd", "bundle", "verify", str(root / "x.zip"), "--no-run"]
    began = time.monotonic()
    child = subprocess.Popen([*command, "--key", str(root / "key.pub")], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(child.returncode)
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
