"""Who shall have which partitions: everything is given once, evenly, and little of it moves."""

import time
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING, Assignment
from streamcore.broker.coordinator.consumer_groups.assignors import ASSIGNORS, Candidate, in_ranges, uniform

T, U, V = (UUID(int=number) for number in (1, 2, 3))
ALL = (T, U, V)


def candidate(name: str, *topics: UUID, has: Assignment = NOTHING, instance: str | None = None) -> Candidate:
    return Candidate(name, instance, frozenset(topics), has)


def pairs(assignment: Assignment) -> set[tuple[UUID, int]]:
    return {(topic_id, partition) for topic_id, found in assignment.items() for partition in found}


counts = st.fixed_dictionaries({topic_id: st.integers(1, 9) for topic_id in ALL})
equals = st.integers(1, 6).map(lambda count: [frozenset(ALL)] * count)
others = st.lists(st.sets(st.sampled_from(ALL)).map(frozenset), min_size=1, max_size=6)


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[Candidate], dict[UUID, int]]:
    """Members with what they may have had: no partition twice, some of it gone or not subscribed to any more."""
    partitions = draw(counts)
    subscriptions = draw(equals | others)
    owners = [(topic_id, partition) for topic_id in ALL for partition in range(partitions[topic_id] + 2)]
    had: list[dict[UUID, frozenset[int]]] = [{} for _ in subscriptions]
    for topic_id, partition in owners:
        owner = draw(st.integers(-1, len(subscriptions) - 1))
        if owner >= 0:
            had[owner][topic_id] = had[owner].get(topic_id, frozenset()) | {partition}
    members = [
        Candidate(f"m{number}", draw(st.sampled_from([None, f"i{number}"])), topics, own)
        for number, (topics, own) in enumerate(zip(subscriptions, had, strict=True))
    ]
    return members, {topic_id: partitions[topic_id] for topics in subscriptions for topic_id in topics}


@settings(deadline=None)
@given(groups(), st.sampled_from(sorted(ASSIGNORS)))
def test_every_partition_is_given_once_to_a_subscriber(
    group: tuple[list[Candidate], dict[UUID, int]], name: str
) -> None:
    members, partitions = group
    found = ASSIGNORS[name](members, partitions)
    assert set(found) == {member.member_id for member in members}
    given = [pair for assignment in found.values() for pair in pairs(assignment)]
    assert sorted(given) == sorted((t, p) for t, count in partitions.items() for p in range(count))
    assert all(set(found[member.member_id]) <= member.topics for member in members)
    assert all(own for assignment in found.values() for own in assignment.values())


@settings(deadline=None)
@given(groups())
def test_uniform_is_even(group: tuple[list[Candidate], dict[UUID, int]]) -> None:
    members, partitions = group
    found = uniform(members, partitions)
    load = {member.member_id: len(pairs(found[member.member_id])) for member in members}
    if len({member.topics for member in members}) == 1:
        assert max(load.values()) - min(load.values()) <= 1
    for giver in members:
        for taker in members:
            # Nobody could be relieved by one who has two less.
            if load[giver.member_id] - load[taker.member_id] > 1:
                assert not any(topic_id in taker.topics for topic_id in found[giver.member_id])


@settings(deadline=None)
@given(groups())
def test_uniform_leaves_what_is_even_as_it_is(group: tuple[list[Candidate], dict[UUID, int]]) -> None:
    members, partitions = group
    once = uniform(members, partitions)
    again = uniform([member._replace(assigned=once[member.member_id]) for member in members], partitions)
    assert again == once


@settings(deadline=None)
@given(groups())
def test_uniform_moves_no_more_than_it_has_to_among_equals(group: tuple[list[Candidate], dict[UUID, int]]) -> None:
    members, partitions = group
    if len({member.topics for member in members}) > 1:
        return
    found = uniform(members, partitions)
    exist = {(t, p) for t, count in partitions.items() for p in range(count)}
    least, extra = divmod(len(exist), len(members))
    had = sorted((len(pairs(member.assigned) & exist) for member in members), reverse=True)
    # As many as may have one more keep one more.
    kept_most = sum(min(own, least + (place < extra)) for place, own in enumerate(had))
    kept = sum(len(pairs(member.assigned) & pairs(found[member.member_id])) for member in members)
    assert kept == kept_most


def test_a_new_member_takes_its_share_and_nothing_else_moves() -> None:
    before = uniform([candidate("a", T), candidate("b", T)], {T: 9})
    after = uniform([candidate("a", T, has=before["a"]), candidate("b", T, has=before["b"]), candidate("c", T)], {T: 9})
    assert [len(pairs(after[name])) for name in "abc"] == [3, 3, 3]
    assert pairs(after["a"]) < pairs(before["a"])
    assert pairs(after["b"]) < pairs(before["b"])


def test_range_gives_the_same_numbers_of_all_topics() -> None:
    members = [candidate("a", T, U), candidate("b", T, U), candidate("c", U)]
    assert in_ranges(members[:2], {T: 3, U: 3}) == {
        "a": {T: {0, 1}, U: {0, 1}},
        "b": {T: {2}, U: {2}},
    }
    assert in_ranges(members, {T: 3, U: 3}) == {"a": {T: {0, 1}, U: {0}}, "b": {T: {2}, U: {1}}, "c": {U: {2}}}


def test_range_takes_static_members_first_whatever_their_ids() -> None:
    one = in_ranges([candidate("a", T), candidate("z", T, instance="1"), candidate("y", T, instance="2")], {T: 3})
    assert one == {"z": {T: {0}}, "y": {T: {1}}, "a": {T: {2}}}


def test_a_large_group_takes_little_time() -> None:
    topics = [UUID(int=number) for number in range(100)]
    partitions = dict.fromkeys(topics, 50)
    different = [candidate(f"m{number}", *topics[number % 10 :]) for number in range(200)]
    equal = [candidate(f"m{number}", *topics) for number in range(200)]
    for members in (equal, different):
        for assign in ASSIGNORS.values():
            started_s = time.perf_counter()
            assign(members, partitions)
            assert time.perf_counter() - started_s < 2
