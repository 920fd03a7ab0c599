"""Values to bytes and back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamcore as sc
from streamcore.codecs import codec_for
from streamcore.errors import DecodeError


class Two(sc.Record):
    x: int


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(), st.floats(-1e9, 1e9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=10,
)


@given(json_values)
def test_any_json_value_survives(value: Any) -> None:
    codec = codec_for(None)
    assert codec.loads(codec.dumps(value)) == value
    assert codec.loads_fast(codec.dumps(value)) == value


@given(st.text())
def test_text_is_its_own_utf8(value: str) -> None:
    codec = codec_for(str)
    assert codec.dumps(value) == value.encode()
    assert codec.loads(value.encode()) == value


@given(st.binary())
def test_bytes_stay_as_they_are(value: bytes) -> None:
    codec = codec_for(bytes)
    assert codec.dumps(value) == value == codec.loads(value)


@pytest.mark.parametrize("type_", [None, str, int, dict[str, int], list[float]])
@given(st.binary())
def test_any_bytes_are_a_value_or_a_decode_error(type_: Any, data: bytes) -> None:
    try:
        codec_for(type_).loads(data)
    except DecodeError:
        pass


@given(st.lists(st.integers(-(2**31), 2**31)))
def test_declared_types_are_checked(value: list[int]) -> None:
    codec = codec_for(list[int])
    assert codec.loads(codec.dumps(value)) == value
    with pytest.raises(DecodeError):
        codec.loads(b'["a"]')


def test_what_cannot_be_is_a_usage_error() -> None:
    with pytest.raises(sc.UsageError, match="serializer"):
        codec_for(None, "yaml")
    with pytest.raises(sc.UsageError, match="JSON cannot hold"):
        codec_for(dict[str, int] | Two)  # which of the two an object is, nobody could tell
    with pytest.raises(sc.UsageError, match="takes str or bytes"):
        codec_for(bytes).dumps(3)


def test_serializers_by_name() -> None:
    assert codec_for(None, "raw").loads(b"\xff") == b"\xff"
    assert codec_for(str, "json").dumps("a") == b'"a"'
    assert codec_for(None, "text").loads(b"a") == "a"
