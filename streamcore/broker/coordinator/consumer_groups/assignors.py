"""Who shall have which partitions: Kafka's two assignors, under its names.

`uniform` spreads partitions evenly and leaves with a member what it has; `range` gives each member the same numbers of
all topics, so that records with one key meet, whatever their topic.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING, Assignment, assignment_of

# A move that evens out one topic may unsettle another; after so many rounds over all topics what is left is small.
_ROUNDS_MAX: Final = 16


class Candidate(NamedTuple):
    """A member that can be given partitions."""

    member_id: str
    instance_id: str | None
    topics: frozenset[UUID]  # those it subscribes to and that exist
    assigned: Assignment  # the target so far


def uniform(members: Sequence[Candidate], partitions: Mapping[UUID, int]) -> dict[str, Assignment]:
    """A balanced target that moves as little as it can.

    Members that subscribe to the same differ by one partition at most; others by as little as their subscriptions
    allow.

    Args:
        partitions: how many a topic has, of every topic that somebody subscribes to.
    """
    if len({member.topics for member in members}) <= 1:
        return _uniform_for_equals(members, partitions)
    return _uniform_for_all(members, partitions)


def _uniform_for_equals(members: Sequence[Candidate], partitions: Mapping[UUID, int]) -> dict[str, Assignment]:
    if not members:
        return {}
    free = {topic_id: set(range(partitions[topic_id])) for topic_id in sorted(members[0].topics)}
    least, extra = divmod(sum(partitions[topic_id] for topic_id in free), len(members))
    kept: dict[str, dict[UUID, list[int]]] = {}
    for member in members:
        own = kept[member.member_id] = {}
        for topic_id, assigned in member.assigned.items():
            if topic_id in free:
                own[topic_id] = sorted(assigned & free[topic_id])
                free[topic_id].difference_update(own[topic_id])
    room: list[tuple[str, int]] = []
    # Who has more than its share anyway is the one to have one more.
    for member_id, own in sorted(kept.items(), key=lambda each: -sum(map(len, each[1].values()))):
        quota = least + (extra > 0)
        extra -= extra > 0
        for topic_id, taken in own.items():
            free[topic_id].update(taken[quota:])
            del taken[quota:]
            quota -= len(taken)
        if quota:
            room.append((member_id, quota))
    rest = ((topic_id, partition) for topic_id, left in free.items() for partition in sorted(left))
    for member_id, quota in room:
        for _, (topic_id, partition) in zip(range(quota), rest, strict=False):
            kept[member_id].setdefault(topic_id, []).append(partition)
    return {member_id: assignment_of(own.items()) for member_id, own in kept.items()}


def _uniform_for_all(members: Sequence[Candidate], partitions: Mapping[UUID, int]) -> dict[str, Assignment]:
    subscribers: dict[UUID, list[str]] = defaultdict(list)
    owned: dict[UUID, dict[str, list[int]]] = {}
    load = {member.member_id: 0 for member in members}
    for member in members:
        for topic_id in member.topics:
            subscribers[topic_id].append(member.member_id)
    free = {topic_id: set(range(partitions[topic_id])) for topic_id in subscribers}
    for topic_id in subscribers:
        owned[topic_id] = {}
    for member in members:
        for topic_id, assigned in member.assigned.items():
            if topic_id in member.topics:
                taken = sorted(assigned & free[topic_id])
                free[topic_id].difference_update(taken)
                owned[topic_id][member.member_id] = taken
                load[member.member_id] += len(taken)
    # Topics with few subscribers first: those with many can make up for them.
    order = sorted(subscribers, key=lambda topic_id: (len(subscribers[topic_id]), topic_id))
    for topic_id in order:
        heap = [(load[member_id], member_id) for member_id in subscribers[topic_id]]
        heapq.heapify(heap)
        for partition in sorted(free[topic_id]):
            _, member_id = heap[0]
            owned[topic_id].setdefault(member_id, []).append(partition)
            load[member_id] += 1
            heapq.heapreplace(heap, (load[member_id], member_id))
    for _ in range(_ROUNDS_MAX):
        if not sum(_even_out(subscribers[topic_id], owned[topic_id], load) for topic_id in order):
            break
    found: dict[str, list[tuple[UUID, list[int]]]] = {member.member_id: [] for member in members}
    for topic_id, by_member in owned.items():
        for member_id, taken in by_member.items():
            found[member_id].append((topic_id, taken))
    return {member_id: assignment_of(own) for member_id, own in found.items()}


def _even_out(subscribers: Sequence[str], owned: dict[str, list[int]], load: dict[str, int]) -> bool:
    """Move partitions of one topic from who has most to who has least; whether one has moved."""
    givers = [(-load[member_id], member_id) for member_id, taken in owned.items() if taken]
    takers = [(load[member_id], member_id) for member_id in subscribers]
    heapq.heapify(givers)
    heapq.heapify(takers)
    has_moved = False
    # An entry whose load is not the member's any more is passed over: another one tells it.
    while givers and takers:
        (negative, giver), (least, taker) = givers[0], takers[0]
        if -negative != load[giver] or not owned[giver]:
            heapq.heappop(givers)
        elif least != load[taker]:
            heapq.heappop(takers)
        elif -negative - least <= 1:
            break
        else:
            owned.setdefault(taker, []).append(owned[giver].pop())
            load[giver] -= 1
            load[taker] += 1
            has_moved = True
            for member_id in (giver, taker):
                heapq.heappush(givers, (-load[member_id], member_id))
                heapq.heappush(takers, (load[member_id], member_id))
    return has_moved


def in_ranges(members: Sequence[Candidate], partitions: Mapping[UUID, int]) -> dict[str, Assignment]:
    """For each topic, consecutive partitions in the order of the members: static ones first, by instance id."""
    order = sorted(
        members,
        key=lambda each: (each.instance_id is None, each.member_id if each.instance_id is None else each.instance_id),
    )
    subscribers: dict[UUID, list[str]] = defaultdict(list)
    for member in order:
        for topic_id in member.topics:
            subscribers[topic_id].append(member.member_id)
    found: dict[str, dict[UUID, frozenset[int]]] = {member.member_id: {} for member in members}
    for topic_id, member_ids in subscribers.items():
        least, extra = divmod(partitions[topic_id], len(member_ids))
        start = 0
        for place, member_id in enumerate(member_ids):
            end = start + least + (place < extra)
            if end > start:
                found[member_id][topic_id] = frozenset(range(start, end))
            start = end
    return {member_id: own or NOTHING for member_id, own in found.items()}


Assignor = Callable[[Sequence[Candidate], Mapping[UUID, int]], dict[str, Assignment]]
ASSIGNORS: Final[Mapping[str, Assignor]] = {"uniform": uniform, "range": in_ranges}
