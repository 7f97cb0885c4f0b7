from hypothesis import given
from hypothesis import strategies as st

from mobilekd.keys import differences, key_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(options=st.dictionaries(st.text(), json_values, max_size=5))
def test_a_key_does_not_depend_on_the_order_of_options(options: dict[str, object]) -> None:
    turned = dict(reversed(options.items()))
    assert key_of({"options": options}) == key_of({"options": turned})


@given(options=st.dictionaries(st.text(), json_values, max_size=5))
def test_equal_parts_do_not_differ(options: dict[str, object]) -> None:
    assert differences({"options": options, "version": 1}, {"options": options, "version": 1}) == []


def test_differences_name_tools_inputs_and_version() -> None:
    before = {"stage": "train", "version": 1, "tools": {"torch": "2.12"}, "inputs": [["Student", "a"]]}
    after = {"stage": "train", "tools": {"torch": "2.13"}, "inputs": [["Student", "b"]], "version": 2}
    assert differences(before, after) == ["version 1 -> 2", "tool torch 2.12 -> 2.13", "input Student changed"]
