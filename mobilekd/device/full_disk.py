"""A disk that takes no more, as the programs that fill it tell of it."""

from pathlib import Path

from mobilekd.errors import MobilekdError, StageError
from mobilekd.paths import free_bytes

_NO_SPACE = "No space left on device"
_FULL_BYTES = 1 << 20


def refuse_full_disk(state: Path, cause: MobilekdError) -> None:
    """Accept an error of a compiler, pip or apt that is not that of a full disk.

    Args:
        state: Folder of this host for what is built and downloaded for devices.
        cause: What went wrong while it was filled.

    Raises:
        StageError: The disk is full.
    """
    if _NO_SPACE in cause.message or free_bytes(state) < _FULL_BYTES:
        raise full_disk(state, cause.message) from cause


def full_disk(state: Path, said: str) -> StageError:
    """Return the error of a full disk, with the bytes that are left on it."""
    return StageError(
        f"no space is left ({free_bytes(state):,} bytes in {state}): {said}",
        hint="mobilekd cache prune, or another disk: MOBILEKD_CACHE=DIR mobilekd devices setup",
        code="MKD-430",
    )
