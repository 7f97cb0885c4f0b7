import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.errors import VerificationError
from mobilekd.release.dsse import Envelope, envelope_text, pae, parse_envelope
from mobilekd.release.strict_json import parse_canonical

ENVELOPE = Envelope(b'{"a": 1}', "ab" * 32, bytes(range(64)))


def test_the_encoding_is_the_example_of_the_specification():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_of_the_encoding_count_bytes():
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


@given(first=st.tuples(st.text(), st.binary()), second=st.tuples(st.text(), st.binary()))
def test_two_payloads_have_one_encoding_only_if_they_are_equal(first: tuple[str, bytes], second: tuple[str, bytes]):
    assert (pae(*first) == pae(*second)) == (first == second)


@given(payload=st.binary(), signature=st.binary(min_size=64, max_size=64))
def test_an_envelope_is_read_as_it_was_written(payload: bytes, signature: bytes):
    envelope = Envelope(payload, "0f" * 32, signature)
    assert parse_envelope(envelope_text(envelope).encode(), "x") == envelope


def test_an_envelope_has_the_fields_of_the_specification():
    document = json.loads(envelope_text(ENVELOPE))
    assert document == {
        "payload": base64.b64encode(b'{"a": 1}').decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": "ab" * 32, "sig": base64.b64encode(bytes(range(64))).decode()}],
    }


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_never_gives_the_same_envelope(position: int, flip: int):
    content = bytearray(envelope_text(ENVELOPE).encode())
    content[position % len(content)] ^= flip
    assert _read_or_refused(bytes(content)) != ENVELOPE


def _read_or_refused(content: bytes) -> Envelope | None:
    try:
        return parse_envelope(content, "x")
    except VerificationError:
        return None


_CHARACTERS = st.characters(exclude_categories=["Cs"])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(_CHARACTERS), st.lists, max_leaves=10))
def test_canonical_text_is_read(value: object):
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert parse_canonical(text.encode(), "x") == value


def test_too_many_values_are_refused_before_they_are_made():
    with pytest.raises(VerificationError, match="about 300002 JSON values"):
        parse_canonical(b"[" + b"0," * 300_000 + b"[]", "x")
