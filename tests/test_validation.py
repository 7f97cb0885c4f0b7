from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from mobilekd.errors import ConfigError
from mobilekd.validation import Origin, validate


class Inner(BaseModel):
    number: int = 0


class Outer(BaseModel):
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


documents = st.dictionaries(
    st.sampled_from(["inner", "many", "other"]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3) | st.floats(),
        lambda deep: st.lists(deep, max_size=2) | st.dictionaries(st.sampled_from(["number", "x"]), deep, max_size=2),
        max_leaves=5,
    ),
)


@given(document=documents)
def test_whatever_is_written_is_read_or_refused_with_the_file_named(document: dict[str, object]) -> None:
    refusals: list[str] = []
    try:
        validate(Outer, document, Origin(Path("x.toml")))
    except ConfigError as refusal:
        refusals = refusal.message.splitlines()
    assert all(line.startswith("x.toml: ") for line in refusals)
