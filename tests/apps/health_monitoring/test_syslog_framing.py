"""One connection, several ways to end a message."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apps.health_monitoring.syslog_framing import FrameSplitter

LIMIT = 100


def split(data: bytes, *cuts: int, limit: int = LIMIT) -> list[bytes]:
    splitter = FrameSplitter(limit)
    edges = [0, *sorted(cuts), len(data)]
    frames = [frame for a, b in pairwise(edges) for frame in splitter.feed(data[a:b])]
    return [frame.data for frame in frames + splitter.close()]


def test_lines_end_with_lf_or_nul_and_empty_ones_are_nothing() -> None:
    assert split(b"<1>a\n\n<1>b\x00<1>c\r\n") == [b"<1>a", b"<1>b", b"<1>c\r"]


def test_a_counted_message_may_hold_line_ends() -> None:
    assert split(b"8 <1>a\nb\nc10 <1>abcdefg") == [b"<1>a\nb\nc", b"<1>abcdefg"]


def test_one_connection_may_mix_both() -> None:
    assert split(b"5 <1>ab\n<1>c\n4 <1>d<1>e\n") == [b"<1>ab", b"<1>c", b"<1>d", b"<1>e"]


def test_a_line_that_begins_with_a_number_is_no_count() -> None:
    assert split(b"2026 was a year\n404 not found\n") == [b"2026 was a year", b"404 not found"]


def test_the_last_line_needs_no_end() -> None:
    assert split(b"<1>a\n<1>b") == [b"<1>a", b"<1>b"]


def test_a_counted_message_that_is_cut_off_is_marked() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b"50 <1>half of it") == []
    assert splitter.close() == [(b"<1>half of it", True)]


def test_a_long_line_is_cut_and_marked_and_the_next_one_is_whole() -> None:
    splitter = FrameSplitter(LIMIT)
    frames = splitter.feed(b"<1>" + b"x" * 5000) + splitter.feed(b"x" * 5000) + splitter.feed(b"\n<1>next\n")
    assert [(len(frame.data), frame.truncated) for frame in frames] == [(LIMIT, True), (7, False)]


def test_a_line_of_exactly_the_limit_is_whole() -> None:
    splitter = FrameSplitter(LIMIT)
    assert splitter.feed(b"x" * LIMIT) == []
    assert splitter.feed(b"\n") == [(b"x" * LIMIT, False)]


def test_a_long_counted_message_is_cut_and_marked_and_the_next_one_is_whole() -> None:
    splitter = FrameSplitter(LIMIT)
    frames = splitter.feed(b"5000 <1>" + b"x" * 200) + splitter.feed(b"x" * 4797) + splitter.feed(b"7 <1>next")
    assert [(len(frame.data), frame.truncated) for frame in frames] == [(LIMIT, True), (7, False)]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_the_buffer_stays_within_its_bound_whatever_comes(chunks: list[bytes]) -> None:
    splitter = FrameSplitter(LIMIT)
    for chunk in chunks:
        for frame in splitter.feed(chunk):
            assert 0 < len(frame.data) <= LIMIT
        assert splitter.buffered_bytes <= LIMIT + 12


framed = st.tuples(st.binary(max_size=60).map(lambda b: b"<1>" + b), st.sampled_from(["count", "lf", "nul"]))


@given(st.lists(framed, max_size=8), st.lists(st.integers(0, 400), max_size=10))
def test_how_the_bytes_arrive_makes_no_difference(messages: list[tuple[bytes, str]], cuts: list[int]) -> None:
    stream, expected = b"", []
    for body, way in messages:
        if way == "count":
            stream += b"%d %s" % (len(body), body)
        else:
            body = body.replace(b"\n", b"").replace(b"\x00", b"")
            stream += body + (b"\n" if way == "lf" else b"\x00")
        expected.append(body)
    assert split(stream, *(min(cut, len(stream)) for cut in cuts)) == expected


def test_bytes_one_at_a_time_make_no_difference() -> None:
    data = b"5 <1>ab\n<1>c\n4 <1>d<1>e\n2026 x\n"
    assert split(data, *range(len(data))) == [b"<1>ab", b"<1>c", b"<1>d", b"<1>e", b"2026 x"]
