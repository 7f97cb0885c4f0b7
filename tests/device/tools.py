"""Programs that a test needs; where MOBILEKD_CI is set, tests/conftest.py makes the skip a failure."""

import shutil

import pytest


def need(*programs: str) -> None:
    """Skip the test that calls this when a program is not on PATH."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        pytest.skip(f"not on PATH: {', '.join(absent)}")
