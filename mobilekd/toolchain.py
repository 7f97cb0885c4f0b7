"""Isolated, pinned, hash-locked Python environments for converters with hostile pins.

The file name of a lock in `toolchains/` is the name of a toolchain. Its
environment lives in ROOT/NAME-DIGEST-pyX.Y, where DIGEST is of the lock: a new
lock makes a new environment beside the old one, and never changes one in use.
An environment counts once its `.ready` file is there, which is written last.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from mobilekd.errors import MissingToolError, StageError
from mobilekd.process import run_logged

# onnx2tf's lock pins numpy 2.2.6, which has no wheel for CPython 3.14; tflite-support has none above 3.11.
_PYTHONS = {"onnx2tf": ((3, 12), (3, 13)), "tflite-support": ((3, 11),)}
_PROBE_TIMEOUT_S = 20.0
_NO_PROXY_ANSWERS_HERE = "http://127.0.0.1:9"  # the discard port: a download fails at once instead of leaving the host
# Where packages come from is the user's choice; how the environment is made is ours.
_UV_SETTINGS_KEPT = (
    "UV_CACHE_DIR",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_TIMEOUT",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_INDEX_URL",
    "UV_LINK_MODE",
    "UV_NATIVE_TLS",
    "UV_OFFLINE",
    "UV_PYTHON_INSTALL_DIR",
    "UV_SYSTEM_CERTS",
)
_DROPPED = ("PYTHON", "PIP_", "UV_", "VIRTUAL_ENV", "CONDA_", "PYENV_VERSION", "__PYVENV")


class Teller(Protocol):
    """Where the install shows a line of progress; `mobilekd.stage.Progress` is one."""

    def say(self, line: str) -> None:
        """Show one line that stays."""


@dataclass(frozen=True, slots=True)
class ToolchainStatus:
    """What `mobilekd doctor` shows of one toolchain.

    Attributes:
        ready: The environment is made.
        python: Version of its CPython, as "3.12"; empty when it is not made.
        path: Its folder; the toolchains root when it is not made.
        detail: What is there, or the command that makes it.
    """

    ready: bool
    python: str
    path: Path
    detail: str


def names() -> tuple[str, ...]:
    """Return the toolchains that have a lock."""
    folder = resources.files("mobilekd") / "toolchains"
    return tuple(sorted(Path(lock.name).stem for lock in folder.iterdir() if lock.name.endswith(".txt")))


def lock_text(name: str) -> str:
    """Return the requirements of a toolchain: every package pinned, with its hashes."""
    return (resources.files("mobilekd") / "toolchains" / f"{name}.txt").read_text(encoding="utf-8")


def lock_digest(name: str) -> str:
    """Return the sha256 of a lock without its comments: what enters the key of everything the toolchain makes."""
    lines = [line.strip() for line in lock_text(name).splitlines() if not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pins(name: str) -> Mapping[str, str]:
    """Return the locked version of every package, by distribution name."""
    lines = [line.split() for line in lock_text(name).splitlines() if "==" in line and not line.startswith("#")]
    return dict(line[0].split("==", 1) for line in lines)


def status(name: str, root: Path) -> ToolchainStatus:
    """Return whether a toolchain is made; starts no program."""
    made = _made(name, root)
    if made is None:
        return ToolchainStatus(
            ready=False, python="", path=root, detail=f"not made yet: mobilekd toolchain install {name}"
        )
    python = made.name.rpartition("-py")[2]
    return ToolchainStatus(
        ready=True, python=python, path=made, detail=f"{name} {pins(name).get(name, '')} on CPython {python}"
    )


def install(name: str, root: Path, progress: Teller) -> Path:
    """Return the Python of a toolchain's environment, made first where it is not there.

    Two processes that ask at once make it once: the second waits for the first.

    Raises:
        MissingToolError: No uv, no CPython that fits, or a package could not be had.
    """
    made = _made(name, root)
    if made is not None:
        return _python_of(made)
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{name}.lock"):
        made = _made(name, root)
        return _python_of(made if made is not None else _make(name, root, progress))


def find_uv() -> Path:
    """Return the uv program: beside this Python, in the `uv` package, or on PATH.

    Raises:
        MissingToolError: There is none.
    """
    beside = Path(sys.executable).parent / "uv"
    if beside.is_file():
        return beside
    try:
        import uv

        return Path(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        on_path = shutil.which("uv")
    if on_path is None:
        raise MissingToolError(
            "uv is not installed; it makes the converters' own environments",
            hint=f"{sys.executable} -m pip install uv",
            code="MKD-303",
        )
    return Path(on_path)


def find_python(name: str = "onnx2tf") -> Path:
    """Return a CPython that a toolchain's lock is for, and that really runs: this one, from PATH, pyenv's, or uv's own.

    Every candidate is started: a pyenv shim on PATH exits 127 when its version is not the chosen one.

    Raises:
        MissingToolError: None runs; the message names what was tried.
    """
    wanted = [f"{major}.{minor}" for major, minor in _PYTHONS[name]]
    tried: list[str] = []
    for candidate in dict.fromkeys(_candidates(wanted)):
        answer = _version_of(candidate)
        if answer in _PYTHONS[name]:
            return candidate
        tried.append(f"{candidate} ({answer if isinstance(answer, str) else f'CPython {answer[0]}.{answer[1]}'})")
    raise MissingToolError(
        f"no CPython {' or '.join(wanted)} runs here; tried: {', '.join(tried) or 'nothing was found'}",
        hint="uv python install {0}, or pyenv install {0}, or your system's python{0} package".format(wanted[0]),
        code="MKD-303",
    )


@functools.cache
def offline_prefix() -> tuple[str, ...]:
    """Return the words before a command that take its network away; empty where this system does not allow it."""
    choices = (("unshare", "-n"), ("unshare", "-rn")) if os.geteuid() == 0 else (("unshare", "-rn"),)
    for prefix in choices:
        if _runs((*prefix, sys.executable, "-c", "")):
            return prefix
    return ()


def isolated_env(python: Path) -> dict[str, str]:
    """Return the environment variables for a program of a toolchain: nothing of the user's Python, no proxy, no hub."""
    dead = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NO_PROXY_ANSWERS_HERE)
    # Upper case too: Python's urllib reads either, requests and curl do not agree.
    dead |= {key.upper(): value for key, value in dead.items()}
    path = os.pathsep.join((str(python.parent), os.environ.get("PATH", os.defpath)))
    offline = {"no_proxy": "", "NO_PROXY": "", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    return _without_python_settings() | dead | offline | {"PATH": path}


def _make(name: str, root: Path, progress: Teller) -> Path:
    uv, base = find_uv(), find_python(name)
    version = _version_of(base)
    folder = root / f"{_prefix(name)}{version[0]}.{version[1]}"
    # A virtual environment can't be moved, so it is made in place; without its marker it is the rest of a killed try.
    shutil.rmtree(folder, ignore_errors=True)
    log, lock = root / f"{name}.log", root / f"{name}.lock.txt"
    log.unlink(missing_ok=True)
    lock.write_text(lock_text(name), encoding="utf-8")
    started_s = time.monotonic()
    progress.say(f"making the {name} environment: {len(pins(name))} locked packages, once for this machine")
    env = _uv_env()
    quiet = ("--quiet", "--directory", str(root))  # a project's own uv settings lie in the working directory
    install_argv = ("pip", "install", "--python", str(_python_of(folder)), "--require-hashes", "--no-deps")
    try:
        run_logged([str(uv), "venv", *quiet, "--python", str(base), "--no-project", str(folder)], log, env=env)
        # Wheels only: building a source distribution would fetch and run packages that no hash covers.
        run_logged([str(uv), *install_argv, *quiet, "--only-binary", ":all:", "-r", str(lock)], log, env=env)
    except StageError as cause:
        raise MissingToolError(
            f"the {name} environment could not be made: {cause.message}",
            hint=f"needs a package index once: mobilekd toolchain install {name}; the whole log: {log}",
            code="MKD-303",
        ) from cause
    (folder / ".ready").write_text(lock_digest(name) + "\n", encoding="utf-8")
    progress.say(f"the {name} environment is ready after {time.monotonic() - started_s:.0f} s: {folder}")
    return folder


def _prefix(name: str) -> str:
    return f"{name}-{lock_digest(name)[:16]}-py"


def _made(name: str, root: Path) -> Path | None:
    """Return the finished environment of this lock; one whose Python or marker is gone does not count."""
    for folder in sorted(root.glob(f"{_prefix(name)}*")):
        if (folder / ".ready").is_file() and os.access(_python_of(folder), os.X_OK):
            return folder
    return None


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _candidates(wanted: Sequence[str]) -> Iterator[Path]:
    """Yield Pythons that may fit, the cheapest to try first; uv's own are asked for last."""
    yield Path(sys.executable)
    folders = [Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part]
    for name in (*(f"python{version}" for version in wanted), "python3"):
        yield from (folder / name for folder in folders if (folder / name).is_file())
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in wanted:
        yield from sorted(pyenv.glob(f"{version}.*/bin/python"))
    for version in wanted:
        found = subprocess.run(
            [str(find_uv()), "python", "find", "--no-python-downloads", "--no-project", version],
            env=_uv_env(),
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode == 0:
            yield Path(found.stdout.strip())


def _version_of(python: Path) -> tuple[int, int] | str:
    """Return (major, minor) of a Python, or why it did not say."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as cause:
        return f"does not start: {cause}"
    words = done.stdout.split()
    if done.returncode or len(words) != 2 or not all(word.isdigit() for word in words):
        return f"exit code {done.returncode}"
    return int(words[0]), int(words[1])


def _runs(argv: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _without_python_settings() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}


def _uv_env() -> dict[str, str]:
    kept = {key: os.environ[key] for key in _UV_SETTINGS_KEPT if key in os.environ}
    return _without_python_settings() | kept


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock; the system lets go of it when the process ends, however it ends."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
