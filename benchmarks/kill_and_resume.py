"""Kill a build again and again, run it to its end, and compare its bundle with an undisturbed one.

    python benchmarks/kill_and_resume.py --kills 20 [--work DIR] [-- any `mobilekd build` options]

Prints one line a kill and a verdict; exits 1 if the digests differ or a build failed. The undisturbed build runs in
another folder with another, cold cache, so equal digests also show that a build repeats.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = (sys.executable, "-m", "mobilekd", "build", "--json")


def start(folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start a build in a process group of its own, with a cache of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = [*BUILD, "--cache", str(folder / "cache"), "--out", str(folder / "dist"), *options]
    with (folder / "build.log").open("ab") as log:
        return subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=log, start_new_session=True)


def finish(folder: Path, options: list[str]) -> tuple[str, float]:
    """Run a build to its end; return the bundle's digest and the seconds it took."""
    started = time.monotonic()
    process = start(folder, options)
    result, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the build in {folder} ended with {process.returncode}; see {folder / 'build.log'}")
    return str(json.loads(result)["digest"]), time.monotonic() - started


def main() -> None:
    """Kill, finish, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("options", nargs="*", help="options of `mobilekd build`, after --")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="mobilekd-kill-"))
    expected, seconds = finish(work / "undisturbed", args.options)
    print(f"undisturbed: {seconds:.0f} s, digest {expected}", flush=True)
    rng = random.Random(args.seed)
    killed = 0
    while killed < args.kills:
        process = start(work / "killed", args.options)
        wait_s = rng.uniform(0.5, 1.6 * seconds / args.kills + 4)
        try:
            process.wait(wait_s)
            print(f"finished before kill {killed + 1}; deleting its cache and going on", flush=True)
            subprocess.run(["rm", "-rf", str(work / "killed" / "cache")], check=True)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            print(f"kill {killed} after {wait_s:.1f} s", flush=True)
    digest, seconds = finish(work / "killed", args.options)
    print(f"after {killed} kills: {seconds:.0f} s more, digest {digest}")
    print("the same bundle" if digest == expected else "ANOTHER bundle")
    sys.exit(digest != expected)


if __name__ == "__main__":
    main()
