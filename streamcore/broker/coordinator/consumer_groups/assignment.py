"""Sets of partitions, by the id of their topic."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final
from uuid import UUID

Assignment = Mapping[UUID, frozenset[int]]  # never changed, and without topics of which it has nothing
NOTHING: Final[Assignment] = MappingProxyType({})


def assignment_of(topics: Iterable[tuple[UUID, Iterable[int]]]) -> Assignment:
    """One that owns its sets; a topic that comes twice has the partitions of both."""
    found: dict[UUID, frozenset[int]] = {}
    for topic_id, partitions in topics:
        both = frozenset(partitions) | found.get(topic_id, frozenset())
        if both:
            found[topic_id] = both
    return found


def intersection(one: Assignment, other: Assignment) -> Assignment:
    return assignment_of((topic_id, one[topic_id] & other[topic_id]) for topic_id in one if topic_id in other)


def difference(one: Assignment, other: Assignment) -> Assignment:
    return assignment_of((topic_id, own - other.get(topic_id, frozenset())) for topic_id, own in one.items())


def union(one: Assignment, other: Assignment) -> Assignment:
    return assignment_of([*one.items(), *other.items()])


def overlap(one: Assignment, other: Assignment) -> bool:
    return any(topic_id in other and not own.isdisjoint(other[topic_id]) for topic_id, own in one.items())


def is_within(one: Assignment, other: Assignment) -> bool:
    """Whether `other` has all of `one`."""
    return all(own <= other.get(topic_id, frozenset()) for topic_id, own in one.items())
