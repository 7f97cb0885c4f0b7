"""Run the steps of a Dockerfile in a folder that stands for its base image, where no container engine runs.

    python -m tests.dockerfile docker/build.Dockerfile ROOT --context . --run "make test"

ROOT is a root file system, made by `debootstrap` for instance; FROM is printed and not obeyed. The other steps run in
order, as root, each in a mount namespace of its own, so that nothing stays mounted. They see the environment that a
container engine gives, what ENV sets, and the variables that --env names (where packages come from is a setting of
this machine, and so is never in a Dockerfile); of this machine's files only those that --bind names.
CMD is not run: --run says what is. Whatever the three Dockerfiles of this project do not use is refused.
"""

import argparse
import fnmatch
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = ("FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "CMD")
_ENGINE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
# $1 root, $2 folder, $3 command, then files and folders of this machine that the root sees under the same path.
# pivot_root and not chroot alone: a process in a chroot may make no user namespace, and one in a container may.
_IN_ROOT = """
root=$1 folder=$2 command=$3; shift 3
mount --rbind "$root" "$root"
for path in /dev /proc /etc/resolv.conf "$@"; do
    if [ -d "$path" ]; then mkdir -p "$root$path"; else mkdir -p "$root${path%/*}"; touch "$root$path"; fi
    mount --rbind "$path" "$root$path"
done
mkdir -p "$root$folder"
cd "$root"
pivot_root . .
umount -l .
exec chroot . /bin/sh -c 'cd "$1" && exec /bin/sh -c "$2"' sh "$folder" "$command"
"""


@dataclass(frozen=True)
class Step:
    """One instruction, its lines joined; `line` is where it begins."""

    line: int
    word: str
    rest: str


@dataclass
class Image:
    """What the steps before have set."""

    root: Path
    folder: str = "/"
    env: dict[str, str] = field(default_factory=lambda: dict(_ENGINE))


def steps(text: str) -> list[Step]:
    """Return the instructions of a Dockerfile.

    Raises:
        ValueError: A line is no instruction that is known here, or has a form that is not.
    """
    found: list[Step] = []
    begun, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue  # a comment between the lines of one instruction goes, too
        begun = begun if joined else number
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        found.append(_step(begun, joined))
        joined = ""
    if joined:
        raise ValueError(f"line {begun}: the file ends in the middle of an instruction")
    if sum(step.word == "FROM" for step in found) != 1 or found[0].word != "FROM":
        raise ValueError("one FROM, as the first instruction, is known here")
    return found


def _step(line: int, text: str) -> Step:
    word, _, rest = text.strip().partition(" ")
    if word not in KNOWN:
        raise ValueError(f"line {line}: {word} is not known here; known: {', '.join(KNOWN)}")
    if word in {"ENV", "WORKDIR", "COPY"} and "$" in rest:
        raise ValueError(f"line {line}: variables in {word} are not filled in here")
    if word in {"RUN", "COPY"} and rest.lstrip().startswith(("-", "[")):
        raise ValueError(f"line {line}: {word} with options or as a list is not known here")
    return Step(line, word, rest.strip())


def assignments(rest: str) -> dict[str, str]:
    """Return what `ENV NAME=VALUE ...` sets.

    Raises:
        ValueError: One of them has no `=`.
    """
    pairs = [word.partition("=") for word in shlex.split(rest)]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError(f"ENV {rest}: NAME=VALUE is the only form known here")
    return {name: value for name, _, value in pairs}


def ignored(dockerignore: str) -> Callable[[str], bool]:
    """Return whether a path, relative to the context, stays out of the image.

    Raises:
        ValueError: A pattern is neither a path from the top nor `**/NAME`.
    """
    patterns = [line.strip() for line in dockerignore.splitlines() if line.strip() and not line.startswith("#")]
    for pattern in patterns:
        name = pattern.removeprefix("**/")
        if set(name) & set("!*?[") or ("/" in name and name != pattern):
            raise ValueError(f".dockerignore: {pattern} is not known here; known: a path from the top, **/NAME")
    anywhere = {pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")}
    return lambda path: path in patterns or path.rpartition("/")[2] in anywhere


def copy(context: Path, source: str, target: Path) -> None:
    """Copy a file or the content of a folder of the context, less what .dockerignore names."""
    rules = context / ".dockerignore"
    out = ignored(rules.read_text(encoding="utf-8") if rules.is_file() else "")

    def skipped(folder: str, names: Iterable[str]) -> set[str]:
        here = Path(folder).relative_to(context)
        return {name for name in names if out((here / name).as_posix())}

    if (context / source).is_dir():
        shutil.copytree(context / source, target, symlinks=True, dirs_exist_ok=True, ignore=skipped)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(context / source, target)


def execute(image: Image, line: str, *, binds: Iterable[str], env: Mapping[str, str]) -> int:
    """Run a line of shell in the image; return its exit code."""
    argv = ["unshare", "--mount", "sh", "-ec", _IN_ROOT, "sh", str(image.root), image.folder, line, *binds]
    return subprocess.run(argv, env={**env, **image.env}, check=False).returncode


def perform(step: Step, image: Image, context: Path, *, binds: Iterable[str], env: Mapping[str, str]) -> int:
    """Do one step; return 0, or the exit code of the command that failed."""
    if step.word == "RUN":
        return execute(image, step.rest, binds=binds, env=env)
    if step.word == "ENV":
        image.env |= assignments(step.rest)
    elif step.word == "WORKDIR":
        image.folder = os.path.normpath(f"{image.folder}/{step.rest}")
    elif step.word == "COPY":
        source, target = shlex.split(step.rest)
        copy(context, source, image.root / os.path.normpath(f"{image.folder}/{target}").lstrip("/"))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Run the steps, then the lines of --run; return the exit code of the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("root", type=Path, help="stands for the base image; changed")
    parser.add_argument("--context", type=Path, default=Path(), help="what COPY copies from")
    parser.add_argument("--bind", action="append", default=[], metavar="PATH", help="seen in the root, too")
    parser.add_argument("--env", action="append", default=[], metavar="PATTERN", help="variables passed on")
    parser.add_argument(
        "--from", dest="first", type=int, default=1, metavar="N", help="RUN and COPY before it were done"
    )
    parser.add_argument("--run", action="append", default=[], metavar="LINE", help="afterwards, as `docker run` would")
    words = parser.parse_args()
    image = Image(words.root.resolve())
    env = {name: value for name, value in os.environ.items() if any(fnmatch.fnmatch(name, p) for p in words.env)}
    every = steps(words.dockerfile.read_text(encoding="utf-8"))
    every += [Step(0, "RUN", line) for line in words.run]
    for number, step in enumerate(every, 1):
        if step.word in {"RUN", "COPY"} and number < words.first:
            continue
        _say(f"[{number}/{len(every)}] {step.word} {step.rest}")
        begun = time.monotonic()
        code = perform(step, image, words.context.resolve(), binds=words.bind, env=env)
        _say(f"[{number}/{len(every)}] exit code {code}, {time.monotonic() - begun:.1f} s")
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
