"""Regular expressions of strangers, and what is known of topics."""

import time
from uuid import UUID

import pytest

from streamcore.broker.coordinator.consumer_groups.messages import GroupRefusedError
from streamcore.broker.coordinator.consumer_groups.topics import Topic, Topics, check_regex, matching
from streamcore.broker.coordinator.group_messages import GroupError

A, B = UUID(int=1), UUID(int=2)


def test_an_expression_describes_a_name_from_end_to_end() -> None:
    assert matching("a.*", ["a", "ab", "ba", "a.b"]) == ["a", "ab", "a.b"]
    assert matching("a|b", ["a", "ab", "b"]) == ["a", "b"]


@pytest.mark.parametrize("regex", ["(a", "a{1001}", "(?=a)", r"(a)\1", "a**", "[z-a]", "a++", r"\Z", "(" * 5000])
def test_what_is_no_expression_is_refused(regex: str) -> None:
    with pytest.raises(GroupRefusedError) as raised:
        check_regex(regex)
    assert raised.value.error is GroupError.INVALID_REGULAR_EXPRESSION


@pytest.mark.parametrize("regex", [r"\pN", "(?P<n>a)", "(?<n>a)", r"\Qa\E", "a{,2}", r"\z", "(?i)A"])
def test_what_re2_knows_is_taken(regex: str) -> None:
    check_regex(regex)


@pytest.mark.parametrize("regex", ["(a*)*b", "(.?){200}x", "(x|.*a.{200}.*)", "(a?){500}a{500}", "(?:.*a.{15}){10}"])
def test_a_hostile_expression_takes_little_time(regex: str) -> None:
    names = ["a" * 249, "ab" * 124, "b" * 249]
    started_s = time.perf_counter()
    for _ in range(10):
        matching(regex, names)
    assert (time.perf_counter() - started_s) / 30 < 0.05, "a name takes a millisecond at most where nothing else runs"


def test_the_hash_is_another_one_when_something_changes() -> None:
    topics = Topics(1, {"a": Topic(A, 3)})
    hashes = [
        topics.hash_of(["a"]),
        Topics(2, {"a": Topic(A, 4)}).hash_of(["a"]),
        Topics(3, {"a": Topic(B, 3)}).hash_of(["a"]),
        Topics(4, {"a": Topic(A, 3), "b": Topic(B, 1)}).hash_of(["a", "b"]),
        topics.hash_of([]),
    ]
    assert len(set(hashes)) == len(hashes)
    assert topics.hash_of(["a", "nothing"]) == Topics(9, {"a": Topic(A, 3), "b": Topic(B, 1)}).hash_of(["a"])
