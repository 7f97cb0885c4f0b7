import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.release.app import literals
from tests.device.tools import need

NASTY = [
    'plain "quoted"',
    "$x ${y} \\$",
    "back\\slash \\n",
    "two\nlines\r\ttab",
    "é ß 漢字 🦊",
    "??/ \\(x) */",
    "\x00\x7f",
]
texts = st.text(st.characters(codec="utf-8"))


@given(texts)
def test_a_kotlin_literal_reads_back_as_the_text(text: str) -> None:
    # Without its escaped dollar, a Kotlin literal of these escapes is one of JSON.
    escapes = re.sub(r"\\(.)", lambda found: "$" if found[1] == "$" else found[0], literals.kotlin(text))
    assert json.loads(escapes) == text


@given(texts)
def test_a_kotlin_literal_has_no_template_and_is_one_line_of_ascii(text: str) -> None:
    literal = literals.kotlin(text)
    assert re.sub(r"\\.", "", literal).count("$") == 0
    assert literal.isascii()
    assert literal.isprintable()


@given(texts)
def test_a_swift_literal_reads_back_as_the_text(text: str) -> None:
    inside = literals.swift(text)[1:-1]
    read = re.sub(r"\\(?:u\{([0-9a-f]+)\}|(.))", lambda found: chr(int(found[1], 16)) if found[1] else found[2], inside)
    assert read == text


@given(texts)
def test_a_cpp_literal_reads_back_as_the_text_in_utf8(text: str) -> None:
    inside = literals.cpp(text)[1:-1].encode()
    read = re.sub(rb"\\(?:([0-7]{3})|(.))", lambda found: bytes([int(found[1], 8)]) if found[1] else found[2], inside)
    assert read == text.encode()


def test_a_compiler_reads_cpp_literals_as_they_were_meant(tmp_path: Path) -> None:
    need("g++")
    lines = "".join(f"    std::cout << std::string({literals.cpp(text)}) << '\\1';\n" for text in NASTY[:-1])
    (tmp_path / "main.cpp").write_text(f"#include <iostream>\n#include <string>\nint main() {{\n{lines}}}\n")
    subprocess.run(["g++", "-Wall", "-Werror", "-o", tmp_path / "main", tmp_path / "main.cpp"], check=True)
    printed = subprocess.run([tmp_path / "main"], check=True, capture_output=True).stdout
    assert printed == b"".join(text.encode() + b"\1" for text in NASTY[:-1])


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_the_same_float32(value: float) -> None:
    assert np.float32(literals.number(value)) == np.float32(value)


@given(texts)
def test_a_comment_neither_ends_nor_continues_its_line(text: str) -> None:
    words = literals.comment(text)
    assert len(words.splitlines()) <= 1
    assert not {"\\", '"'} & set(words)
    assert "*/" not in words


@pytest.mark.parametrize("text", ["tflite-int8", "5 a", "é", "", "$x", "a\nb"])
def test_an_identifier_is_a_letter_then_letters_digits_and_underscores(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", literals.identifier(text))
