"""What members of a group tell each other: as Kafka's own consumers do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.protocol.consumer_protocol import (
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from streamcore.protocol.errors import MalformedMessageError
from streamcore.types import TP

names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
places = st.frozensets(st.builds(TP, names, st.integers(0, 9))).map(lambda tps: tuple(sorted(tps)))
subscriptions = st.builds(
    Subscription, st.lists(names, max_size=4).map(tuple), places, st.integers(-1, 1 << 30), st.binary(max_size=20)
)


@given(subscriptions)
def test_decoding_inverts_encoding_of_subscriptions(subscription: Subscription) -> None:
    assert decode_subscription(encode_subscription(subscription)) == subscription


@given(places)
def test_decoding_inverts_encoding_of_assignments(tps: tuple[TP, ...]) -> None:
    assert decode_assignment(encode_assignment(tps)) == list(tps)


def test_the_bytes_are_those_of_kafkas_consumer_protocol() -> None:
    data = bytes.fromhex("000200000001000161000000000000000100016100000002000000000000000300000005")
    assert encode_subscription(Subscription(("a",), (TP("a", 0), TP("a", 3)), 5)) == data
    assert encode_assignment([TP("a", 1)]) == bytes.fromhex("000200000001000161000000010000000100000000")


def test_an_older_version_has_no_owned_partitions_and_a_later_one_has_more() -> None:
    old = bytes.fromhex("000000000001000161ffffffff")
    assert decode_subscription(old) == Subscription(("a",))
    later = b"\x00\x03" + encode_subscription(Subscription(("a",), (), 1))[2:] + b"\xff\xff"
    assert decode_subscription(later) == Subscription(("a",), (), 1)


def test_no_bytes_are_no_partitions() -> None:
    assert decode_assignment(b"") == []


@given(subscriptions, st.data())
def test_a_cut_subscription_is_refused_and_never_half_read(subscription: Subscription, data: st.DataObject) -> None:
    encoded = encode_subscription(subscription)
    end = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(MalformedMessageError):
        decode_subscription(encoded[:end])
