"""What the wire handlers and the group coordinator say to each other, and what a group's state machine puts out.

Plain values; the protocol's versions never come here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple


class GroupError(IntEnum):
    """Kafka's error codes that a group answers with."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_VERSION = 35
    INVALID_REQUEST = 42
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    MEMBER_ID_REQUIRED = 79
    GROUP_MAX_SIZE_REACHED = 81
    FENCED_INSTANCE_ID = 82
    FENCED_MEMBER_EPOCH = 110
    UNRELEASED_INSTANCE_ID = 111
    UNSUPPORTED_ASSIGNOR = 112
    STALE_MEMBER_EPOCH = 113
    INVALID_REGULAR_EXPRESSION = 128


class GroupState(StrEnum):
    """The states of a classic group, under the names that DescribeGroups and ListGroups show."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"  # waits for the members to join
    COMPLETING_REBALANCE = "CompletingRebalance"  # waits for the leader's assignment
    STABLE = "Stable"
    DEAD = "Dead"


Protocols = tuple[tuple[str, bytes], ...]  # name and the member's metadata for it, the preferred one first
NO_GENERATION = -1  # in an answer without one, and in the commit of a consumer that is no member
NO_MEMBER_ID = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """A member wants to be in the next generation."""

    group_id: str
    member_id: str  # empty: the coordinator gives one
    group_instance_id: str | None  # of a static member (KIP-345)
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    requires_known_member_id: bool  # a new member is given an id and joins again with it (KIP-394, version 4)
    supports_skip_assignment: bool = False  # a static leader can be told that it need not assign (KIP-814, version 9)


class JoinedMember(NamedTuple):
    """What the leader is told of a member."""

    member_id: str
    group_instance_id: str | None
    metadata: bytes


class JoinResult(NamedTuple):
    error_code: int
    generation_id: int = NO_GENERATION
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = NO_MEMBER_ID
    skip_assignment: bool = False
    member_id: str = NO_MEMBER_ID
    members: tuple[JoinedMember, ...] = ()  # for the leader only


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """A member wants its assignment; the leader brings everybody's."""

    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None
    protocol_type: str | None  # None before version 5
    protocol_name: str | None
    assignments: dict[str, bytes]


class SyncResult(NamedTuple):
    error_code: int
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


class MemberLeft(NamedTuple):
    member_id: str
    group_instance_id: str | None
    error_code: int


class LeaveResult(NamedTuple):
    error_code: int
    members: list[MemberLeft]


class MemberDescription(NamedTuple):
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes  # for the chosen protocol, while the group is stable
    assignment: bytes


class GroupDescription(NamedTuple):
    error_code: int  # GROUP_ID_NOT_FOUND comes with the state Dead; before version 6 clients see the state only
    group_id: str
    state: GroupState
    protocol_type: str = ""
    protocol_name: str = ""
    members: tuple[MemberDescription, ...] = ()
    error_message: str | None = None


class ListedGroup(NamedTuple):
    group_id: str
    protocol_type: str
    state: str
    type: str = "classic"


class GroupTally(NamedTuple):
    """All groups of a node in numbers."""

    by_state: Mapping[str, int]  # the names of the two protocols' states that are the same are counted together
    members: int
    generations: int  # begun since the start: every rebalance ends with one


class StoredMember(NamedTuple):
    """A member as it is written to `__consumer_offsets`."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    metadata: bytes  # for the chosen protocol
    assignment: bytes


class GroupMetadata(NamedTuple):
    """A group as it is written to `__consumer_offsets`: a stable one, or an empty one without members."""

    group_id: str
    generation_id: int
    protocol_type: str
    protocol_name: str | None = None
    leader: str | None = None
    members: tuple[StoredMember, ...] = ()
    state_timestamp_ms: int = -1  # Unix; since when it has been so, -1 where that is not known


class Reply(NamedTuple):
    """The answer to a request that had to wait."""

    ticket: int  # as given with the request
    result: JoinResult | SyncResult


class Write(NamedTuple):
    """Something for `__consumer_offsets`; a later one of the same group says everything an earlier one did."""

    group_id: str
    number: int  # grows with every write of the node
    metadata: GroupMetadata | None  # None is a tombstone


@dataclass(slots=True)
class Outbox:
    """What the groups want done: answers to send, records to write."""

    replies: list[Reply] = field(default_factory=list)
    writes: dict[str, Write] = field(default_factory=dict)  # by group, the latest
    last_write: int = 0
    generations: int = 0  # begun so far, of all groups

    def write(self, group_id: str, metadata: GroupMetadata | None) -> int:
        self.last_write += 1
        self.writes[group_id] = Write(group_id, self.last_write, metadata)
        return self.last_write
