"""Which worker gets which stream tasks: balanced, and as few of them moved as that allows.

Stream tasks are assigned whole, partition n of every topic to one worker, so that rows of one key meet. What moves
between two workers that are both there is given to nobody in the generation that takes it away: its owner commits and
closes it first, and the group meets again (KIP-429).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """What a member says of itself."""

    owned: frozenset[int] = frozenset()  # tasks that it runs
    generation_id: int = -1  # in which it was given them: of two owners the later one is right
    stored: frozenset[int] = frozenset()  # tasks whose tables lie on its disk, whoever runs them


def plan(weights: Sequence[int], claims: Mapping[str, Claim]) -> dict[str, set[int]]:
    """Where every task should be.

    Args:
        weights: what each task costs, by its number; the number of partitions in it.
        claims: by member.
    Returns:
        The tasks of each member. No member could be relieved by moving one more task to another.
    """
    tasks = range(len(weights))
    owners = owners_of(len(weights), claims)
    shares: dict[str, set[int]] = {member: set() for member in sorted(claims)}
    loads = dict.fromkeys(shares, 0)
    for task, member in owners.items():
        shares[member].add(task)
        loads[member] += weights[task]
    quota = -(-sum(weights) // max(1, len(shares)))
    # The heaviest first: what is small fills the gaps at the end.
    free = sorted((task for task in tasks if task not in owners), key=lambda task: (-weights[task], task))
    for task in free:
        # A worker that has the tables on its disk need not read them from a changelog.
        near = [member for member in shares if task in claims[member].stored and loads[member] + weights[task] <= quota]
        member = min(near or shares, key=lambda member: (loads[member], member))
        shares[member].add(task)
        loads[member] += weights[task]
    _balance(weights, shares, loads)
    return shares


def _balance(weights: Sequence[int], shares: dict[str, set[int]], loads: dict[str, int]) -> None:
    """Move tasks to the least loaded while that evens things out."""
    while True:
        low = min(loads, key=lambda member: (loads[member], member))
        for high in sorted(loads, key=lambda member: (loads[member], member), reverse=True):
            gap = loads[high] - loads[low]
            # The largest that makes the gap smaller, of equals the last: the others stay where they are.
            moved = max(
                (task for task in shares[high] if weights[task] < gap),
                key=lambda task: (weights[task], task),
                default=None,
            )
            if moved is not None:
                break
        else:
            return
        shares[high].remove(moved)
        shares[low].add(moved)
        loads[high] -= weights[moved]
        loads[low] += weights[moved]


def owners_of(tasks: int, claims: Mapping[str, Claim]) -> dict[int, str]:
    """Who runs which task; a task that two members claim belongs to the one of the later generation."""
    owners: dict[int, str] = {}
    for member in sorted(claims, key=lambda member: (claims[member].generation_id, member)):
        owners.update((task, member) for task in claims[member].owned if 0 <= task < tasks)
    return owners


def assign(weights: Sequence[int], claims: Mapping[str, Claim]) -> dict[str, set[int]]:
    """The assignment of one generation: the plan, without what somebody else has to give up first."""
    owners = owners_of(len(weights), claims)
    return {
        member: {task for task in tasks if owners.get(task, member) == member}
        for member, tasks in plan(weights, claims).items()
    }


def partitions_of(tasks: Iterable[int], topics: Mapping[str, int]) -> list[tuple[str, int]]:
    """The partitions of some tasks: of each topic, given with its count, those that it has."""
    return [(topic, task) for topic, count in sorted(topics.items()) for task in sorted(tasks) if task < count]
