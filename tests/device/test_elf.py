"""The libraries of a program, against what the loader and readelf say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mobilekd.device.elf import closure, needed
from tests.device.tools import need


def test_needed_agrees_with_readelf():
    need("readelf")
    program = Path(shutil.which("readelf") or sys.executable).resolve()
    said = subprocess.run(["readelf", "-d", str(program)], capture_output=True, text=True, check=True).stdout
    assert list(needed(program.read_bytes())) == re.findall(r"\(NEEDED\).*\[(.*)\]", said)


def test_a_text_file_is_refused():
    with pytest.raises(ValueError, match="ELF"):
        needed(b"#!/bin/sh\n")


def test_a_library_that_is_nowhere_is_named():
    need("readelf")
    program = Path(shutil.which("readelf") or "")
    with pytest.raises(ValueError, match=f"needs {re.escape(needed(program.read_bytes())[0])}"):
        closure([program], {})
