"""What is said to a device's shell, and how its answer is read. POSIX sh only: toybox and busybox must do.

A script goes to `sh` over its standard input, as one compound command: a connection that is cut half way leaves an
incomplete command, of which nothing runs. Its end is a line with a token of this call and the exit code. Without
that line the script did not come to its end, whatever the client's own exit code is.
"""

import hashlib
import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from mobilekd.errors import ConfigError

_STEP = "sleep 0.1 2>/dev/null || sleep 1; tries=$((tries + 1))"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a script printed and how it ended."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def lines(self) -> list[str]:
        """Return the lines of stdout."""
        return self.stdout.decode(errors="replace").splitlines()

    @property
    def complaint(self) -> str:
        """Return stderr as text, for a message."""
        return self.stderr.decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class Content:
    """What the device's store keeps one file under.

    Attributes:
        sha256: Of the bytes.
        size_bytes: Their number.
        is_executable: Whether the file may be run.
    """

    sha256: str
    size_bytes: int
    is_executable: bool

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return what a file of this host is kept under.

        Raises:
            ConfigError: It can't be read.
        """
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as cause:
            raise ConfigError(f"{path}: can't be read: {cause.strerror}", code="MKD-202") from cause
        return cls(digest, path.stat().st_size, os.access(path, os.X_OK))

    @property
    def key(self) -> str:
        """Return the name in the store; the same bytes with and without the executable bit are two files."""
        return self.sha256 + ("x" if self.is_executable else "")


def new_token() -> str:
    """Return a word that no output holds by chance."""
    return f"mobilekd-{secrets.token_hex(12)}"


def framed(script: str, token: str) -> bytes:
    """Return a script for `sh`, with the end that tells its exit code."""
    return f"{{\n(\n{script}\n)\nprintf '\\n%s %s\\n' {token} \"$?\"\n}}\n".encode()


def read_end(stdout: bytes, token: str) -> tuple[int, bytes] | None:
    """Return the exit code and the script's own output; None when the script did not come to its end."""
    body, mark, rest = stdout.rpartition(f"\n{token} ".encode())
    line, newline, _ = rest.partition(b"\n")
    return (int(line), body) if mark and newline and line.isdigit() else None


def check_name(name: str) -> str:
    """Return a file's name on the device if it stays in our folder.

    Raises:
        ConfigError: It does not.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ConfigError(f"{name!r} can't be a file's name on a device", hint="give a relative path without '..'")
    return str(path)


def take(root: str, job: str, owner: str) -> str:
    """Return the script that takes the device: prints the folder, then "taken" or "held" and its holder.

    mkdir is the one step that two hosts can't both do. A command that a cut connection left behind is killed, if its
    working folder shows that it is ours: ids are given anew after a restart.
    """
    return f"""
umask 022
mkdir -p {_q(root)}/store && cd {_q(root)} || exit 1
pwd -P
if mkdir lock 2>/dev/null; then
    for call in job-*/pid-*; do
        pid=$(cat "$call" 2>/dev/null) || continue
        [ "$(readlink "/proc/$pid/cwd")" = "$(pwd -P)/${{call%/*}}/work" ] && kill -KILL "-$pid" 2>/dev/null
    done
    {{ printf '%s\\n' {_q(owner)} >lock/owner && rm -rf job-* && mkdir -p {_q(job)}/work {_q(job)}/incoming; }} ||
        {{ rm -rf lock; exit 1; }}
    echo taken
else
    [ -d lock ] || {{ echo "can't make the folder $PWD/lock" >&2; exit 1; }}
    echo held
    cat lock/owner
fi
"""


def break_lock(root: str) -> str:
    """Return the script that removes the lock of a dead process."""
    return f"rm -rf {_q(root)}/lock"


def leave(root: str, job: str, owner: str) -> str:
    """Return the script that gives the device back: what was made is removed, the store stays."""
    return f"""
cd {_q(root)} || exit 1
rm -rf {_q(job)}
if [ "$(cat lock/owner 2>/dev/null)" = {_q(owner)} ]; then rm -rf lock; fi
"""


def find_contents(folder: str, contents: Sequence[Content]) -> str:
    """Return the script that prints the keys of those files that are in a folder and whole; others are removed.

    Size first, then sha256 where the device has sha256sum.
    """
    wanted = " ".join(f"{content.key}:{content.size_bytes}" for content in contents)
    return f"""
cd {_q(folder)} || exit 1
for pair in {wanted}; do
    key=${{pair%:*}}
    [ -f "$key" ] || continue
    size=$(wc -c <"$key")
    if [ "$((size))" != "${{pair#*:}}" ]; then rm -f "$key"; continue; fi
    if command -v sha256sum >/dev/null 2>&1; then
        sum=$(sha256sum <"$key")
        if [ "${{sum%% *}}" != "${{key%x}}" ]; then rm -f "$key"; continue; fi
    fi
    echo "$key"
done
"""


def keep_contents(incoming: str, store: str, keys: Sequence[str]) -> str:
    """Return the script that moves arrived files into the store."""
    return f"""
cd {_q(incoming)} || exit 1
for key in {" ".join(keys)}; do
    case $key in *x) chmod 755 "$key" ;; *) chmod 644 "$key" ;; esac && mv "$key" {_q(store)}/ || exit 1
done
"""


def place(store: str, work: str, keys: Mapping[str, str]) -> str:
    """Return the script that gives stored files their names in the working folder.

    A hard link costs no space and keeps a program's own folder; Android's policy may forbid it, hence the others.
    """
    lines = [f"cd {_q(work)} || exit 1"]
    for name, key in keys.items():
        parent = str(PurePosixPath(name).parent)
        source, target = f"{_q(store)}/{key}", _q(f"./{name}")
        make = f"mkdir -p {_q('./' + parent)} && " if parent != "." else ""
        lines.append(
            f"{make}rm -f {target} && "
            f"{{ ln {source} {target} 2>/dev/null || ln -s {source} {target} 2>/dev/null || cp {source} {target}; }}"
            " || exit 1"
        )
    return "\n".join(lines)


def run(job: str, call: str, argv: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the script that runs a command in a session of its own, whose id it leaves in the job's file of this call.

    Who makes that file decides, this or `end` (set -C): a command that would begin after its end does not begin.
    Without the working folder (a device that restarted has none) the shell ends itself, which reads as a lost device:
    an exit code would pass for the command's.
    """
    for name in env:
        if not (name.isidentifier() and name.isascii()):
            raise ConfigError(f"{name!r} can't be an environment variable")
    if not argv or any("\0" in word for word in (*argv, *env.values())):
        raise ConfigError(f"{list(argv)!r} can't be a command: it is empty, or a word has a NUL")
    exports = "".join(f"export {name}={_q(value)}\n" for name, value in env.items())
    # The shell goes on after setsid, so that setsid is no group leader: then it does not fork and its exit code counts.
    return f"""
umask 022
cd {_q(job)}/work || {{ kill -KILL $$; exit 1; }}
session=$(command -v setsid)
{exports}$session sh -c 'set -C; echo $$ >../{call} && exec "$@"' sh {shlex.join(argv)} </dev/null
code=$?
rm -f ../{call}
exit $code
"""


def end(job: str, call: str) -> str:
    """Return the script that ends what `run` started, or keeps it from starting, and prints "ended" or "alive"."""
    return f"""
cd {_q(job)} || exit 1
if (set -C; : >{call}) 2>/dev/null; then echo ended; exit 0; fi
tries=0
until [ -s {call} ] || [ ! -e {call} ] || [ $tries -ge 50 ]; do {_STEP}; done
{{ read -r pid <{call}; }} 2>/dev/null || {{ echo ended; exit 0; }}
kill -KILL "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
tries=0
while kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do {_STEP}; done
if kill -0 "$pid" 2>/dev/null; then echo alive; else echo ended; rm -f {call}; fi
"""


def free(folder: str) -> str:
    """Return the script that prints the free space of a folder's file system, in KiB, as the last line's 4th word."""
    return f"df -Pk {_q(folder)} 2>/dev/null || df -k {_q(folder)}"


def empty(folder: str) -> str:
    """Return the script that removes the files in a folder."""
    return f"rm -f {_q(folder)}/*"


def read(path: str) -> str:
    """Return the script that prints a file; 66 when there is none."""
    return f"[ -f {_q(path)} ] || exit 66\ncat {_q(path)}"


def _q(word: str) -> str:
    return shlex.quote(word)
