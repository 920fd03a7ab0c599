"""Records: typed values with Faust's verbs."""

from datetime import datetime
from typing import Any, ClassVar, Optional

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamcore as sc
from streamcore.errors import DecodeError
from streamcore.models import field_name


class Inner(sc.Record):
    x: int


class Order(sc.Record, serializer="json", isodates=True):
    kind: ClassVar[str] = "order"
    name: str
    amount: float
    at: datetime | None
    inner: Optional[Inner]  # noqa: UP045, as older programs write it
    tags: list[str] = msgspec.field(default_factory=list)


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.lists(st.text()))
def test_loading_inverts_dumping(name: str, amount: float, tags: list[str]) -> None:
    order = Order(name, amount, inner=Inner(3), tags=tags)
    assert Order.loads(order.dumps()) == order
    assert Order.from_data(order.to_representation()) == order


def test_trailing_optional_fields_default_to_none_and_others_are_required() -> None:
    assert Order("a", 1.0).asdict() == {"name": "a", "amount": 1.0, "at": None, "inner": None, "tags": []}
    with pytest.raises(TypeError):
        Order("a")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Order("a", 1.0, unknown=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"[]", b"null", b"{}", b'{"name": 3, "amount": 1}', b'{"name": "a", "amount": "1"}',
     b'{"name": "a", "amount": NaN}', b"[" * 100_000],
)  # fmt: skip
def test_bytes_that_are_no_such_record_raise_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Order.loads(data)


@given(st.binary())
def test_any_bytes_are_a_record_or_a_decode_error(data: bytes) -> None:
    try:
        Order.loads(data)
    except DecodeError:
        pass


def test_unknown_fields_are_ignored_and_coercion_is_a_choice() -> None:
    class Lenient(sc.Record, coerce=True):
        n: int

    assert Order.loads(b'{"name": "a", "amount": 1, "more": [1, {}]}') == Order("a", 1.0)
    assert Lenient.loads(b'{"n": "3"}').n == 3
    assert Lenient.from_data({"n": "3"}).n == 3


def test_derive_and_validation() -> None:
    order = Order("a", 1.0)
    assert order.derive(amount=2.0) == Order("a", 2.0)
    assert order.derive(Order("b", 3.0), name="c") == Order("c", 3.0)
    assert order.is_valid()
    assert order.validate() == []
    wrong = Order("a", "much")  # type: ignore[arg-type]
    assert not wrong.is_valid()
    with pytest.raises(DecodeError, match="not a valid Order"):
        wrong.validate_or_raise()


def test_a_field_of_the_class_names_itself() -> None:
    assert field_name(Order.amount) == "amount"
    assert field_name("amount") is None
    assert field_name(len) is None


def test_subclasses_keep_the_fields_of_their_base() -> None:
    class Special(Order):
        extra: int | None

    special: Any = Special("a", 1.0, extra=3)
    assert Special.loads(special.dumps()) == special
    assert Special("a", 1.0).extra is None
