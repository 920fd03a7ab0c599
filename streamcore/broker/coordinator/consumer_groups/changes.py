"""What happens to consumer groups, change by change: a group is what they make of it, live and after a restart."""

from enum import IntEnum
from typing import NamedTuple

from streamcore.broker.coordinator.consumer_groups.assignment import Assignment
from streamcore.broker.coordinator.consumer_groups.messages import GroupEpoch, MemberMetadata, ResolvedRegex
from streamcore.broker.coordinator.consumer_groups.reconciliation import CurrentAssignment


class Kind(IntEnum):
    """What a change is about; the number is the version of its record's key."""

    EPOCH = 3
    MEMBER = 5
    TARGET_EPOCH = 6
    TARGET = 7
    CURRENT = 8
    REGEX = 16


Value = GroupEpoch | MemberMetadata | int | Assignment | CurrentAssignment | ResolvedRegex


class Change(NamedTuple):
    """One thing that is different from now on."""

    kind: Kind
    group_id: str
    name: str  # of the member, or the regular expression; empty for what is the whole group's
    value: Value | None  # None is a tombstone


class Changes:
    """Those that are to be stored, in their order: who gets a partition comes after who has let go of it."""

    def __init__(self) -> None:
        self.last_number = 0
        self.group_epochs = 0  # begun so far, of all groups
        self._pending: list[Change] = []

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, change: Change) -> int:
        """The change's number."""
        self._pending.append(change)
        self.last_number += 1
        self.group_epochs += change.kind is Kind.EPOCH and change.value is not None
        return self.last_number

    def take(self) -> list[Change]:
        taken, self._pending = self._pending, []
        return taken
