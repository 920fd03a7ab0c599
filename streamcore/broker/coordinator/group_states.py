"""The states of a group and what moves it between them; an illegal event is a missing key.

```
Empty ──► PreparingRebalance ◄──────────┬───────────────┐
  ▲           │        │                │               │  a member comes, changes or goes
  └─ nobody ──┘        ▼                │               │
            CompletingRebalance ────────┴──► Stable ────┘
```
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from streamcore.broker.coordinator.group_messages import GroupError, GroupState

EMPTY, PREPARING, COMPLETING, STABLE, DEAD = GroupState


class Event(Enum):
    REBALANCE = auto()
    MEMBERS_JOINED = auto()
    NOBODY_JOINED = auto()
    ASSIGNED = auto()
    DELETED = auto()


TRANSITIONS: Final[Mapping[tuple[GroupState, Event], GroupState]] = {
    (EMPTY, Event.REBALANCE): PREPARING,
    (COMPLETING, Event.REBALANCE): PREPARING,
    (STABLE, Event.REBALANCE): PREPARING,
    (PREPARING, Event.MEMBERS_JOINED): COMPLETING,
    (PREPARING, Event.NOBODY_JOINED): EMPTY,
    (COMPLETING, Event.ASSIGNED): STABLE,
    (EMPTY, Event.DELETED): DEAD,
}
# What a member is told in answer to a heartbeat and to a commit; in the other states there is no member.
HEARTBEAT_ANSWERS: Final[Mapping[GroupState, GroupError]] = {
    PREPARING: GroupError.REBALANCE_IN_PROGRESS,
    COMPLETING: GroupError.NONE,
    STABLE: GroupError.NONE,
}
COMMIT_ANSWERS: Final[Mapping[GroupState, GroupError]] = {
    PREPARING: GroupError.NONE,  # members commit what they have done before they join again
    COMPLETING: GroupError.REBALANCE_IN_PROGRESS,
    STABLE: GroupError.NONE,
}
