"""The next step of one member towards what it shall have.

```
            target is newer                     it owns nothing that it has to give back
Stable ───────────────────► UnrevokedPartitions ───────────────────┐
  ▲  │                                                             ▼
  │  └────────────────────────────────────────────► UnreleasedPartitions
  └──────────── all that it shall have is free ◄───────────────────┘
```
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple
from uuid import UUID

from streamcore.broker.coordinator.consumer_groups.assignment import (
    NOTHING,
    Assignment,
    assignment_of,
    difference,
    intersection,
    overlap,
    union,
)

JOINING_EPOCH: Final = 0  # of a member that is not in the group yet
LEAVING_EPOCH: Final = -1
STATIC_LEAVING_EPOCH: Final = -2  # of a static member that will be back


class MemberState(IntEnum):
    """Kafka's, as they are stored."""

    STABLE = 0
    UNREVOKED_PARTITIONS = 1  # it has to let go of some before it goes on
    UNRELEASED_PARTITIONS = 2  # others have to let go of some that it shall have


class CurrentAssignment(NamedTuple):
    """How far a member has come."""

    epoch: int = JOINING_EPOCH
    previous_epoch: int = JOINING_EPOCH  # still good once: the answer with the newer one may have been lost
    state: MemberState = MemberState.STABLE
    assigned: Assignment = NOTHING  # what it may read, as soon as it hears of it
    revoking: Assignment = NOTHING  # what it has to let go of, and has until it says otherwise

    def is_at(self, target_epoch: int) -> bool:
        return self.state is MemberState.STABLE and self.epoch == target_epoch

    def at_epoch(self, epoch: int) -> "CurrentAssignment":
        """Also where it is the same: an older request does not count for what has been given or claimed since."""
        return self._replace(epoch=epoch, previous_epoch=self.epoch)


def next_step(
    current: CurrentAssignment,
    target_epoch: int,
    target: Assignment,
    owned: Assignment | None,
    is_free: Callable[[UUID, int], bool],
) -> CurrentAssignment:
    """Where the member is after a heartbeat.

    Args:
        owned: what it says it has; None where it does not say.
        is_free: whether nobody has a partition, the member itself included.
    """
    match current.state:
        case MemberState.STABLE:
            if current.epoch == target_epoch:
                return current
            return _towards(current, current.epoch, target_epoch, target, owned, is_free)
        case MemberState.UNREVOKED_PARTITIONS:
            if owned is None or overlap(owned, current.revoking):
                return current
            return _towards(current, current.epoch + 1, target_epoch, target, owned, is_free)
        case MemberState.UNRELEASED_PARTITIONS:
            return _towards(current, current.epoch, target_epoch, target, owned, is_free)


def _towards(
    current: CurrentAssignment,
    epoch: int,
    target_epoch: int,
    target: Assignment,
    owned: Assignment | None,
    is_free: Callable[[UUID, int], bool],
) -> CurrentAssignment:
    kept = intersection(current.assigned, target)
    revoking = difference(current.assigned, kept)
    if revoking and (owned is None or overlap(owned, revoking)):
        return current.at_epoch(epoch)._replace(
            state=MemberState.UNREVOKED_PARTITIONS, assigned=kept, revoking=revoking
        )
    lacking = difference(target, kept)
    given = assignment_of(
        (topic_id, (partition for partition in partitions if is_free(topic_id, partition)))
        for topic_id, partitions in lacking.items()
    )
    return current.at_epoch(target_epoch)._replace(
        state=MemberState.STABLE if given == lacking else MemberState.UNRELEASED_PARTITIONS,
        assigned=union(kept, given),
        revoking=NOTHING,
    )
