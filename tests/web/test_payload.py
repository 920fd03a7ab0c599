"""JSON that always comes out."""

import json

from hypothesis import given
from hypothesis import strategies as st

from streamcore.web.payload import TEXT_MAX, dump, readable
from streamcore.web.queries import integer

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(ANYTHING)
def test_anything_becomes_json_that_browsers_read(value: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(dump(value), parse_constant=refuse)


@given(ANYTHING)
def test_anything_becomes_text_of_bounded_length(value: object) -> None:
    shown = readable(value)
    assert len(shown["text"]) <= TEXT_MAX
    json.loads(dump(shown))


def test_whole_numbers_keep_every_digit() -> None:
    assert "9007199254740993" in readable({"total": 9_007_199_254_740_993})["text"]
    assert str(1 << 80) in readable({"total": 1 << 80})["text"]


def test_a_long_value_says_how_much_is_left_out() -> None:
    shown = readable("x" * (TEXT_MAX + 7))
    assert (shown["cut"], shown["kind"]) == (7, "text")


def test_nothing_is_null_and_not_an_empty_text() -> None:
    assert readable(None)["kind"] == "null"
    assert readable("")["kind"] == "text"


@given(st.integers(0, 100))
def test_a_parameter_within_its_bounds_is_taken(value: int) -> None:
    assert integer({"count": str(value)}, "count", 5, high=100) == value
