"""What a page needs to run models: our own two files, and ONNX Runtime's for browsers out of a pinned npm package.

npm is asked once, for the tarball, so that the registry, proxy and key of the user's own configuration count; nothing
of it runs, and no Node is needed afterwards. On a machine without npm the tarball can be laid in place by hand.
"""

import base64
import hashlib
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mobilekd.errors import MissingToolError, VerificationError

PAGE, PROGRAM = "page.html", "runner.mjs"
"""The page that runs models, and its one module: mkdrun's twin in a browser."""
PAGE_RUNTIME = "ort.wasm.min.mjs"
"""What that module loads: the runtime's own."""

_DOWNLOAD_TIMEOUT_S = 600.0
_SETUP = "mobilekd devices setup --profile web"


@dataclass(frozen=True, slots=True)
class Pin:
    """The package as web/runtime.toml pins it.

    Attributes:
        package, version: Of the npm registry.
        integrity: Of its tarball, as npm writes it: "sha512-" and the hash in base64.
        files: Members that a page needs, from the package's root.
        beside: Members that are kept with them: who made it, under which licence.
    """

    package: str
    version: str
    integrity: str
    files: tuple[str, ...]
    beside: tuple[str, ...]

    @property
    def told(self) -> str:
        """Return the package for people, as "onnxruntime-web 1.30.0"."""
        return f"{self.package} {self.version}"

    @property
    def tarball(self) -> str:
        """Return the name that npm gives its tarball."""
        return f"{self.package}-{self.version}.tgz"


def pin() -> Pin:
    """Return what web/runtime.toml says."""
    entry = tomllib.loads((resources.files("mobilekd.device") / "web" / "runtime.toml").read_text(encoding="utf-8"))
    return Pin(**{**entry, "files": tuple(entry["files"]), "beside": tuple(entry["beside"])})


def kit(root: Path, say: Callable[[str], None]) -> Mapping[str, Path]:
    """Return the files that a page needs, by the name that it asks for; what is not there is downloaded.

    Args:
        root: State folder; the runtime is kept in root/web.
        say: Told when something is downloaded.

    Raises:
        MissingToolError: npm is not installed, or its registry was not reached.
        VerificationError: The tarball is not the one that was pinned.
    """
    wanted = pin()
    need(root)
    folder = find(root) or _fetch(wanted, root, say)
    ours = Path(__file__).with_name("web")
    runtime = {Path(name).name: folder / Path(name).name for name in wanted.files}
    return {PAGE: ours / PAGE, PROGRAM: ours / PROGRAM, **runtime}


def find(root: Path) -> Path | None:
    """Return the folder of the pinned runtime if it is on this host; downloads nothing."""
    folder = _kept(pin(), root)
    return folder if folder.is_dir() else None


def need(root: Path) -> None:
    """Accept a host that has the runtime, or can get it: out of a tarball that was laid in place, or by npm.

    Raises:
        MissingToolError: It can't.
    """
    laid = laid_tarball(root)
    if find(root) is None and not laid.is_file() and shutil.which("npm") is None:
        raise MissingToolError(
            f"npm is not on PATH, which downloads {pin().told} once",
            hint=f"apt-get install npm; or lay {pin().tarball} of npm's registry into {laid.parent}",
            code="MKD-306",
        )


def download_argv(wanted: Pin, to: Path) -> list[str]:
    """Return the command that downloads the tarball."""
    return [
        "npm",
        "pack",
        "--loglevel=error",
        "--ignore-scripts",
        "--pack-destination",
        str(to),
        wanted.told.replace(" ", "@"),
    ]


def laid_tarball(root: Path) -> Path:
    """Return where a tarball may be laid by hand on a machine without npm."""
    return root / "web" / pin().tarball


def integrity_of(file: Path) -> str:
    """Return the hash of a file as npm writes it."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode()}"


def _kept(wanted: Pin, root: Path) -> Path:
    mark = hashlib.sha256(wanted.integrity.encode()).hexdigest()[:16]
    return root / "web" / f"{wanted.package}-{wanted.version}-{mark}"


def _fetch(wanted: Pin, root: Path, say: Callable[[str], None]) -> Path:
    folder, laid = _kept(wanted, root), laid_tarball(root)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
        work = Path(scratch)
        tarball = laid if laid.is_file() else _download(wanted, work, laid, say)
        found = integrity_of(tarball)
        if found != wanted.integrity:
            raise VerificationError(
                f"{tarball.name} has integrity {found}, and {wanted.integrity} was pinned",
                hint=f"remove {laid}"
                if tarball == laid
                else "npm's registry or cache gave another file: npm cache verify",
                code="MKD-708",
            )
        _extract(wanted, tarball, work / "files")
        try:
            (work / "files").rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _download(wanted: Pin, to: Path, laid: Path, say: Callable[[str], None]) -> Path:
    say(f"downloading {wanted.told} by npm")
    argv = download_argv(wanted, to)
    try:
        done = subprocess.run(argv, cwd=to, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise MissingToolError(f"{wanted.told} was not downloaded: {cause}", hint=_SETUP, code="MKD-306") from cause
    tarball = to / wanted.tarball
    if done.returncode or not tarball.is_file():
        said = npm_sentence(done.stderr) or f"npm ended with exit code {done.returncode}"
        raise MissingToolError(
            f"{wanted.told} could not be downloaded: {said}",
            hint=f"needs npm's registry once; the file belongs into {laid.parent}:"
            f" {shlex.join(argv[:4])} {wanted.package}@{wanted.version}",
            code="MKD-306",
        )
    return tarball


def npm_sentence(stderr: str) -> str:
    """Return npm's first sentence; lines of a word or two are codes."""
    lines = (re.sub(r"^npm (error|ERR!)\s*", "", line) for line in stderr.splitlines())  # npm 10 and later, and before
    return next((line for line in lines if len(line.split()) > 3), "")


def _extract(wanted: Pin, tarball: Path, to: Path) -> None:
    """Write the wanted members by their own last names; no other name of the archive is ever a path here."""
    to.mkdir()
    with tarfile.open(tarball, "r:gz") as archive:
        for name in (*wanted.files, *wanted.beside):
            content = archive.extractfile(f"package/{name}")
            assert content is not None, name  # the hash says that it is so
            (to / Path(name).name).write_bytes(content.read())
