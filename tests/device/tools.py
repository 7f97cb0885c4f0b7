"""Programs that tests of devices run; CI has all of them."""

import os
import shutil

import pytest


def need(program: str) -> str:
    """Return the path of a program; without it the test is skipped, and fails in CI."""
    found = shutil.which(program)
    if found is None:
        missing(f"{program} is not installed")
    return found


def missing(reason: str) -> None:
    """Skip the test; in CI, where nothing may be missing, fail it."""
    if os.environ.get("MOBILEKD_CI"):
        pytest.fail(reason)
    pytest.skip(reason)
