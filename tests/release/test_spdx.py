import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilekd.release.spdx import is_allowed

NAMES = st.sampled_from(["MIT", "Apache-2.0", "GPL-3.0-only"])


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", ["mit"]),
        ("(MIT)", ["MIT"]),
        ("GPL-3.0-only OR MIT", ["MIT"]),
        ("MIT AND Apache-2.0", ["MIT", "Apache-2.0"]),
        ("GPL-3.0-only AND MIT OR Apache-2.0", ["Apache-2.0"]),
        ("Apache-2.0 WITH LLVM-exception", ["Apache-2.0"]),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only with Classpath-exception-2.0"]),
        ("LGPL-2.1-or-later", ["LGPL-2.1-only"]),
        ("LGPL-2.1+", ["LGPL-2.1"]),
        ("see the home page", ["See the home  page"]),
    ],
)
def test_allowed(expression: str, allowed: list[str]):
    assert is_allowed(expression, allowed)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("", ["MIT"]),
        ("MIT AND GPL-3.0-only", ["MIT"]),
        ("GPL-3.0-only AND (MIT OR Apache-2.0)", ["MIT", "Apache-2.0"]),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["Classpath-exception-2.0"]),
        ("LGPL-2.1-only", ["LGPL-2.1-or-later"]),
        ("MIT OR", ["MIT"]),
        ("MIT MIT", ["MIT"]),
        ("(MIT", ["MIT"]),
        ("MIT)", ["MIT"]),
        ("OR MIT", ["MIT"]),
        ("MIT; see LICENSE", ["MIT"]),
        ("(" * 5000 + "MIT" + ")" * 5000, ["MIT"]),
    ],
)
def test_refused(expression: str, allowed: list[str]):
    assert not is_allowed(expression, allowed)


@given(NAMES, NAMES, st.sets(NAMES, min_size=1))
def test_and_needs_both_sides_and_or_needs_one(left: str, right: str, allowed: set[str]):
    assert is_allowed(f"{left} AND {right}", allowed) == (left in allowed and right in allowed)
    assert is_allowed(f"{left} OR {right}", allowed) == (left in allowed or right in allowed)
