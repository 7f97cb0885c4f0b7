"""Debian packages of another architecture, fetched and unpacked without root and without touching the host's own dpkg.

apt runs with a state, a cache and a sources list of its own. The sources are those of the host (its mirrors and its
keys), narrowed to the host's own release; the packages' signatures are checked as apt always does.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mobilekd.device.sources import Source, of_release, read_sources, render_sources
from mobilekd.errors import MissingToolError, StageError
from mobilekd.process import run_logged

_FETCH_TIMEOUT_S = 600.0
_ROLLING = ("sid", "unstable", "testing")  # these have no backports


@dataclass(frozen=True, slots=True)
class Deb:
    """One fetched package.

    Attributes:
        name, version: As its control file gives them.
        sha256: Of the .deb file.
        file: The .deb file's name.
    """

    name: str
    version: str
    sha256: str
    file: str


class PrivateApt:
    """An apt of our own in a folder, for one architecture."""

    def __init__(self, folder: Path, architecture: str, *, etc: Path = Path("/etc")) -> None:
        """Take the folder to work in (made when missing) and where the host's settings are.

        Raises:
            MissingToolError: This system has no apt.
        """
        need_apt()
        self.folder = folder
        self.architecture = architecture
        self._etc = etc
        self._log = folder / "apt.log"
        self._updated = False

    @property
    def archives(self) -> Path:
        """Return the folder of the fetched .deb files."""
        return self.folder / "archives"

    def fetch(self, names: Sequence[str], *, with_dependencies: bool, backports: bool = False) -> tuple[Deb, ...]:
        """Download packages into `archives` and return those that this call brought or found there.

        Args:
            names: Binary packages.
            with_dependencies: Also all that they depend on (never what they recommend).
            backports: Prefer the versions of the release's backports.

        Raises:
            MissingToolError: No mirror answers, or a package is not in this release.
        """
        self._update()
        kept = self.archives if with_dependencies else self.folder / "single"
        (kept / "partial").mkdir(parents=True, exist_ok=True)
        before = {path: path.stat().st_mtime_ns for path in self.archives.glob("*.deb")}
        release = ("-t", f"{self._codename()}-backports") if backports and self._has_backports() else ()
        verb = ("install", "--download-only", "--no-install-recommends") if with_dependencies else ("download",)
        self._apt([*release, *verb, *names], f"can't fetch {', '.join(names)} for {self.architecture}", cwd=kept)
        for path in (self.folder / "single").glob("*.deb"):
            path.replace(self.archives / path.name)
        now = sorted(self.archives.glob("*.deb"))
        return tuple(_describe(path) for path in now if before.get(path) != path.stat().st_mtime_ns)

    def depends(self, deb: Deb) -> tuple[str, ...]:
        """Return the names of the packages that a fetched one depends on, first choices only."""
        done = subprocess.run(
            ["dpkg-deb", "--field", str(self.archives / deb.file), "Depends"],
            capture_output=True,
            text=True,
            check=True,
        )
        return tuple(choice.split()[0].partition(":")[0] for choice in done.stdout.split(",") if choice.strip())

    def _update(self) -> None:
        if self._updated:
            return
        for name in ("lists/partial", "archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        sources = self._sources()
        if not sources:
            raise MissingToolError(
                f"{self._etc}/apt names no repository of the release {self._codename()!r}",
                hint="prepare the emulator on Debian or in docker/emulator",
                code="MKD-304",
            )
        (self.folder / "private.list").write_text(render_sources(sources), encoding="utf-8")
        (self.folder / "apt.conf").write_text(self._settings(), encoding="utf-8")
        self._apt(["update", "--error-on=any"], f"no package list for {self.architecture} could be read")
        self._updated = True

    def _apt(self, words: Sequence[str], failure: str, cwd: Path | None = None) -> None:
        argv = ["apt-get", "-q", "-y", "-c", str(self.folder / "apt.conf"), *words]
        if cwd is not None:  # `apt-get download` writes into its working folder
            argv = ["env", "-C", str(cwd), *argv]
        try:
            run_logged(argv, self._log, timeout_s=_FETCH_TIMEOUT_S)
        except StageError as cause:
            raise MissingToolError(
                f"{failure}: {cause.message}",
                hint="it needs a Debian mirror once; see that `apt-get update` works on this machine",
                code="MKD-304",
            ) from cause

    def _settings(self) -> str:
        # The host's own apt.conf.d is read first (proxies, credentials); its hooks would act on the host, so they go.
        hooks = "APT::Update::Pre-Invoke APT::Update::Post-Invoke APT::Update::Post-Invoke-Success DPkg::Pre-Invoke"
        values = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "APT::Get::AllowUnauthenticated": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "20",
            "Dir::Cache": str(self.folder),
            "Dir::Cache::archives": str(self.archives),
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Etc::sourcelist": str(self.folder / "private.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": str(self.folder),
            "Dir::State::lists": str(self.folder / "lists"),
            "Dir::State::status": str(self.folder / "status"),
        }
        cleared = "".join(f"#clear {name};\n" for name in ("APT::Architectures", *hooks.split()))
        return cleared + "".join(f'{name} "{value}";\n' for name, value in values.items())

    def _codename(self) -> str:
        release = self._etc / "os-release"
        lines = release.read_text(encoding="utf-8").splitlines() if release.is_file() else []
        pairs = dict(line.split("=", 1) for line in lines if "=" in line)
        return pairs.get("VERSION_CODENAME", "").strip('"')

    def _has_backports(self) -> bool:
        return self._codename() not in _ROLLING

    def _sources(self) -> tuple[Source, ...]:
        apt = self._etc / "apt"
        files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
        found = [
            source
            for path in files
            if path.is_file() and path.suffix in {".list", ".sources"}
            for source in read_sources(path.read_text(encoding="utf-8"), is_deb822=path.suffix == ".sources")
        ]
        return of_release(found, self._codename(), with_backports=self._has_backports())


def need_apt() -> None:
    """Accept a host that has apt.

    Raises:
        MissingToolError: It does not.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingToolError(
                f"{program} is not on PATH; the emulator's packages come from a Debian mirror",
                hint="prepare the emulator on Debian or in docker/emulator",
                code="MKD-304",
            )


def unpack(debs: Iterable[Path], to: Path) -> None:
    """Unpack the files of packages into a folder; no script of theirs runs.

    Raises:
        StageError: A package is damaged.
    """
    to.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        run_logged(["dpkg-deb", "--extract", str(deb), str(to)], to.parent / "unpack.log")


def write_record(debs: Iterable[Deb], to: Path) -> None:
    """Write names, versions and sha256 of packages, sorted: what was used can be told afterwards."""
    rows = [asdict(deb) for deb in sorted(debs, key=lambda deb: deb.name)]
    to.write_text(json.dumps({"packages": rows}, indent=1) + "\n", encoding="utf-8")


def _describe(path: Path) -> Deb:
    fields = subprocess.run(
        ["dpkg-deb", "--showformat", "${Package}\n${Version}", "--show", str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return Deb(fields[0], fields[1], hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
