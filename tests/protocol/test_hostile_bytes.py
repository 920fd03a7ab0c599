"""Bytes that are no message end in one kind of error, at no cost in memory; what a newer client adds is passed over."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.protocol import messages
from streamcore.protocol.errors import MalformedMessageError, UnsupportedVersionError
from streamcore.protocol.messages import APIS

SOME = [(api, version) for api in APIS.values() for version in {api.first_version, api.last_version}]


def request_bytes(api: Any, version: int, request: Any) -> bytes:
    out = bytearray()
    api.write_request(version, request, out)
    return bytes(out)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SOME), st.binary(max_size=200))
def test_random_bytes_are_malformed_or_a_message(case: tuple[Any, int], data: bytes) -> None:
    api, version = case
    try:
        api.read_request(version, memoryview(data))
    except MalformedMessageError:
        pass


def a_fetch(version: int) -> bytes:
    fetch: Any = messages.Fetch
    return request_bytes(
        fetch,
        version,
        fetch.Request(
            topics=[
                fetch.FetchTopic(topic="events", partitions=[fetch.FetchPartition(partition=3), fetch.FetchPartition()])
            ],
            forgotten_topics_data=[fetch.ForgottenTopic(topic="gone", partitions=[1, 2])],
            rack_id="rack",
        ),
    )


@pytest.mark.parametrize("version", [4, 11, 12, 18])
def test_a_message_cut_anywhere_is_malformed(version: int) -> None:
    whole = a_fetch(version)
    for size in range(len(whole)):
        with pytest.raises(MalformedMessageError):
            messages.Fetch.read_request(version, memoryview(whole)[:size])


def test_bytes_behind_a_message_are_passed_over_as_kafka_does() -> None:
    assert messages.Fetch.read_request(12, memoryview(a_fetch(12) + b"\0\0\0")).rack_id == "rack"


def test_a_list_that_claims_more_than_there_is_takes_no_memory() -> None:
    claims = [
        (3, 0, b"\x7f\xff\xff\xff"),
        (3, 9, b"\xff\xff\xff\xff\x07"),
        (1, 4, b"\xff" * 4 + b"\0" * 13 + b"\x7f\xff\xff\xff"),
    ]
    tracemalloc.start()
    try:
        for key, version, data in claims:
            with pytest.raises(MalformedMessageError):
                APIS[key].read_request(version, memoryview(data))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_list_of_null_where_none_may_be_is_malformed() -> None:
    with pytest.raises(MalformedMessageError, match="null"):
        messages.Metadata.read_request(0, memoryview(b"\xff\xff\xff\xff"))


def test_a_tag_that_nobody_knows_is_passed_over() -> None:
    whole = bytearray(a_fetch(12))
    assert whole[-1] == 0, "no tags"
    whole[-1:] = b"\x01" + b"\x63" + b"\x03" + b"new"
    assert messages.Fetch.read_request(12, memoryview(bytes(whole))).rack_id == "rack"


def test_a_version_that_nobody_has_is_an_error_of_its_own() -> None:
    with pytest.raises(UnsupportedVersionError, match="Fetch has versions 4 to 18, not 19"):
        messages.Fetch.read_request(19, memoryview(b""))
