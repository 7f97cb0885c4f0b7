"""Build the runner for a machine, and the plug-in that counts, from the C sources of this package; once for each."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources, util
from pathlib import Path
from typing import Protocol

from mobilekd.errors import MissingToolError, StageError
from mobilekd.process import run_logged

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
_CROSS = "aarch64-linux-gnu-gcc"
_ZIG_TARGET = "aarch64-linux-gnu.2.28"  # the oldest glibc that the runtimes' own wheels allow
_BUILD_TIMEOUT_S = 300.0


class Teller(Protocol):
    """Where a build shows a line of progress; `mobilekd.stage.Progress` is one."""

    def say(self, line: str) -> None:
        """Show one line that stays."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler.

    Attributes:
        argv: The words that start it.
        version: First line of what it says of itself.
    """

    argv: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What is compiled: sources with what they include, flags before the sources and libraries after them."""

    sources: tuple[str, ...]
    headers: tuple[str, ...]
    flags: tuple[str, ...]
    libraries: tuple[str, ...]


_RUNNER = _Recipe(
    sources=("mkdrun.c", "layers.c", "litert.c", "ort.c", "mnn.c", "python_stubs.c"),
    headers=("mkdrun.h",),
    # The old kind of rpath also serves the libraries that a library needs. -rdynamic: see python_stubs.c.
    flags=("-rdynamic", "-Wl,-rpath,$ORIGIN", "-Wl,--disable-new-dtags"),
    libraries=("-ldl",),
)
_PLUGIN = _Recipe(("mkcount.c",), (), ("-shared", "-fPIC", "-fvisibility=hidden"), ())


def runner(machine: str, root: Path, progress: Teller) -> Path:
    """Return mkdrun for a machine, built first where these sources and this compiler have not been.

    Args:
        machine: "aarch64" or "x86_64".
        root: State folder; the program is kept in root/native.
        progress: Told when something is built.

    Raises:
        MissingToolError: No compiler for that machine; the message names those that would do.
        StageError: The compiler refused; the message carries what it said.
    """
    return _built(f"mkdrun-{machine}", _RUNNER, compiler(machine), root, progress)


def counting_plugin(root: Path, progress: Teller) -> Path:
    """Return the plug-in for qemu-aarch64 on this host, built where it has not been.

    Raises:
        MissingToolError: No C compiler for this host.
        StageError: The compiler refused.
    """
    return _built("libmkcount.so", _PLUGIN, host_compiler(), root, progress)


def compiler(machine: str) -> Compiler:
    """Return the C compiler for a machine.

    Raises:
        MissingToolError: There is none.
    """
    if machine == os.uname().machine:
        return host_compiler()
    if machine != "aarch64":
        raise MissingToolError(f"no compiler is known for {machine}", hint="machines: aarch64, x86_64", code="MKD-305")
    if shutil.which(_CROSS):
        return Compiler((_CROSS,), _first_line((_CROSS, "--version")))
    if util.find_spec("ziglang") is not None:
        zig = (sys.executable, "-m", "ziglang")
        return Compiler((*zig, "cc", "-target", _ZIG_TARGET), "zig " + _first_line((*zig, "version")))
    raise MissingToolError(
        f"nothing builds programs for aarch64 here: neither {_CROSS} nor the ziglang package is installed",
        hint=f"apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross, or {sys.executable} -m pip install ziglang",
        code="MKD-305",
    )


def find_runner(machine: str, root: Path) -> Path | None:
    """Return mkdrun for a machine if it is built; None also without a compiler for that machine."""
    return _find(f"mkdrun-{machine}", _RUNNER, lambda: compiler(machine), root)


def find_counting_plugin(root: Path) -> Path | None:
    """Return the plug-in for qemu-aarch64 if it is built."""
    return _find("libmkcount.so", _PLUGIN, host_compiler, root)


def host_compiler() -> Compiler:
    """Return the C compiler for this host.

    Raises:
        MissingToolError: There is none.
    """
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return Compiler((name,), _first_line((name, "--version")))
    raise MissingToolError(
        "no C compiler is on PATH: tried cc, gcc and clang", hint="apt-get install gcc libc6-dev", code="MKD-305"
    )


def _first_line(argv: tuple[str, ...]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingToolError(
            f"{' '.join(argv)} ended with exit code {done.returncode}", hint=done.stderr.strip(), code="MKD-305"
        )
    return done.stdout.partition("\n")[0]


def _find(name: str, recipe: _Recipe, by: Callable[[], Compiler], root: Path) -> Path | None:
    try:
        made = _place(name, recipe, by(), root)
    except MissingToolError:
        return None
    return made if made.is_file() else None


def _texts(recipe: _Recipe) -> dict[str, bytes]:
    folder = resources.files("mobilekd.device") / "native"
    return {file: (folder / file).read_bytes() for file in (*recipe.sources, *recipe.headers)}


def _place(name: str, recipe: _Recipe, by: Compiler, root: Path) -> Path:
    """Return root/native/DIGEST/NAME, the digest being of sources, compiler and flags."""
    digest = hashlib.sha256(repr((_texts(recipe), recipe, by, _FLAGS)).encode()).hexdigest()[:16]
    return root / "native" / digest / name


def _built(name: str, recipe: _Recipe, by: Compiler, root: Path, progress: Teller) -> Path:
    """Return root/native/DIGEST/NAME, built first where it is not there."""
    texts = _texts(recipe)
    made = _place(name, recipe, by, root)
    if made.is_file():
        return made
    progress.say(f"building {name} with {by.version}")
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=made.parent) as scratch:
        work = Path(scratch)
        for file, text in texts.items():
            (work / file).write_bytes(text)
        sources = [str(work / file) for file in recipe.sources]
        argv = [*by.argv, *_FLAGS, *recipe.flags, "-o", str(work / name), *sources, *recipe.libraries]
        try:
            run_logged(argv, work / "log", timeout_s=_BUILD_TIMEOUT_S)
        except StageError as cause:
            raise StageError(f"{name} could not be built: {cause.message}", hint=f"compiler: {by.version}") from cause
        (work / name).replace(made)  # two builds at once write the same program
    return made
