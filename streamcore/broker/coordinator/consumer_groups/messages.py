"""What the wire handlers and the consumer groups say to each other. Plain values; the wire's versions stay outside."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from streamcore.broker.coordinator.consumer_groups.assignment import Assignment
from streamcore.broker.coordinator.group_messages import GroupError
from streamcore.errors import StreamcoreError


class ConsumerGroupState(StrEnum):
    """The states of a consumer group, under the names that ConsumerGroupDescribe and ListGroups show."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"  # something has changed since it was decided who shall have what
    RECONCILING = "Reconciling"  # some members do not have what they shall have, or have more
    STABLE = "Stable"
    DEAD = "Dead"


class GroupRefusedError(StreamcoreError):
    """A request that a group refuses; nothing has changed."""

    def __init__(self, error: GroupError, message: str) -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatRequest:
    """A member is alive, joins or leaves; None is what it does not say because it has not changed."""

    group_id: str
    member_id: str
    member_epoch: int  # 0 joins, -1 leaves, -2 leaves for a while
    client_id: str
    client_host: str
    makes_its_id: bool = True  # from version 1 of the request on; before, the coordinator gives one
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    topic_names: tuple[str, ...] | None = None
    topic_regex: str | None = None  # an empty one is none
    assignor: str | None = None
    owned: Assignment | None = None

    @property
    def strings_bytes(self) -> int:
        texts = (self.member_id, self.instance_id, self.rack_id, self.client_id, self.topic_regex)
        return sum(len(text or "") for text in texts) + sum(map(len, self.topic_names or ()))

    @property
    def is_full(self) -> bool:
        """Whether the member says everything, which it does when it joins and when it has missed an answer."""
        is_all = self.rebalance_timeout_ms >= 0 and self.topic_names is not None and self.owned is not None
        return self.member_epoch == 0 or is_all


class HeartbeatResult(NamedTuple):
    error_code: int
    error_message: str | None = None
    member_id: str | None = None
    member_epoch: int = 0
    heartbeat_interval_ms: int = 0
    assignment: Assignment | None = None  # None is the same as before


class ConsumerMemberDescription(NamedTuple):
    member_id: str
    instance_id: str | None
    rack_id: str | None
    member_epoch: int
    client_id: str
    client_host: str
    topic_names: tuple[str, ...]
    topic_regex: str | None
    assigned: Assignment
    target: Assignment
    is_classic: bool


class ConsumerGroupDescription(NamedTuple):
    error_code: int
    group_id: str
    error_message: str | None = None
    state: ConsumerGroupState | None = None
    group_epoch: int = 0
    target_epoch: int = 0
    assignor: str = ""
    members: tuple[ConsumerMemberDescription, ...] = ()


class ClassicMember(NamedTuple):
    """What is kept of a member that speaks the classic protocol within a consumer group."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]  # name and metadata


class MemberMetadata(NamedTuple):
    """Who a member is and what it wants."""

    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    topic_names: tuple[str, ...]  # sorted, each once
    topic_regex: str | None
    rebalance_timeout_ms: int
    assignor: str | None
    classic: ClassicMember | None = None


class GroupEpoch(NamedTuple):
    """How often the group has changed, and what its topics were like then."""

    epoch: int
    topics_hash: int = 0


class ResolvedRegex(NamedTuple):
    """The topics that an expression has been found to mean."""

    topics: tuple[str, ...]
    revision: int = 0  # of the topics
