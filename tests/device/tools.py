"""Skip a test where a program it needs is not installed; tests/conftest.py makes that a failure under MOBILEKD_CI."""

import shutil

import pytest


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
