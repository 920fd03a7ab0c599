"""The members of one group: who they are, who leads, who has joined the rebalance, which protocol they agree on."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streamcore.broker.coordinator.deadlines import NEVER
from streamcore.broker.coordinator.group_config import MEMBER_OVERHEAD_BYTES
from streamcore.broker.coordinator.group_messages import GroupError, JoinRequest, JoinResult, Protocols, StoredMember


@dataclass(slots=True)
class Member:
    """One consumer. It waits while it holds a ticket."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    is_new: bool = True  # it has not been in a generation yet
    deadline_ms: int = NEVER  # it is dead unless it is heard of before
    join_ticket: int | None = None
    sync_ticket: int | None = None
    # The answer of a static member that took its place in a stable group, and the write that it waits for.
    answer_after_write: tuple[int, JoinResult] | None = None

    @classmethod
    def of(cls, member_id: str, request: JoinRequest) -> "Member":
        return cls(
            member_id=member_id,
            group_instance_id=request.group_instance_id,
            client_id=request.client_id,
            client_host=request.client_host,
            session_timeout_ms=request.session_timeout_ms,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            protocols=request.protocols,
        )

    @classmethod
    def restored(cls, stored: StoredMember, protocol_name: str) -> "Member":
        return cls(
            member_id=stored.member_id,
            group_instance_id=stored.group_instance_id,
            client_id=stored.client_id,
            client_host=stored.client_host,
            session_timeout_ms=stored.session_timeout_ms,
            rebalance_timeout_ms=stored.rebalance_timeout_ms,
            protocols=((protocol_name, stored.metadata),),
            assignment=stored.assignment,
            is_new=False,
        )

    @property
    def is_waiting(self) -> bool:
        return self.join_ticket is not None or self.sync_ticket is not None

    @property
    def size_bytes(self) -> int:
        return MEMBER_OVERHEAD_BYTES + protocols_bytes(self.protocols) + len(self.assignment)

    def metadata(self, protocol_name: str | None) -> bytes:
        return next((metadata for name, metadata in self.protocols if name == protocol_name), b"")


class Members:
    """Members by id, in the order in which they came.

    `leader` is one of them whenever there are any.
    """

    def __init__(self) -> None:
        self.leader: str | None = None
        self.pending: dict[str, int] = {}  # ids given to members that have to join with them, and their deadlines
        self.unsynced: set[str] = set()  # have not fetched this generation's assignment yet
        self.size_bytes = 0
        self.joining = 0  # how many wait for a generation
        self._by_id: dict[str, Member] = {}
        self._static: dict[str, str] = {}
        self._supported: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_id.values())

    def __contains__(self, member_id: object) -> bool:
        return member_id in self._by_id

    def __getitem__(self, member_id: str) -> Member:
        return self._by_id[member_id]

    def get(self, member_id: str) -> Member | None:
        return self._by_id.get(member_id)

    def static_member_id(self, group_instance_id: str) -> str | None:
        return self._static.get(group_instance_id)

    def error_of(self, member_id: str, group_instance_id: str | None) -> GroupError:
        """What a request under this name is refused with, or NONE."""
        if group_instance_id is not None:
            owner = self._static.get(group_instance_id)
            if owner is not None and owner != member_id:
                return GroupError.FENCED_INSTANCE_ID
            if owner is None:
                return GroupError.UNKNOWN_MEMBER_ID
        return GroupError.NONE if member_id in self._by_id else GroupError.UNKNOWN_MEMBER_ID

    # --- coming and going -------------------------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        self.pending.pop(member.member_id, None)
        self._by_id[member.member_id] = member
        if member.group_instance_id is not None:
            self._static[member.group_instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id
        self._count(member, 1)

    def remove(self, member_id: str) -> Member:
        """Forget a member that does not wait; if it led, the one who came first of the others leads."""
        assert not self._by_id[member_id].is_waiting, f"{member_id} would wait for ever"
        member = self._by_id.pop(member_id)
        self._count(member, -1)
        self.unsynced.discard(member_id)
        if member.group_instance_id is not None:
            del self._static[member.group_instance_id]
        if self.leader == member_id:
            self.leader = next(iter(self._by_id), None)
        return member

    def rename(self, member: Member, member_id: str) -> Member:
        """Give a static member's place, with its assignment and what it leads, to its next life."""
        led, had_to_sync = self.leader == member.member_id, member.member_id in self.unsynced
        self.remove(member.member_id)
        member.member_id = member_id
        self.add(member)
        if led:
            self.leader = member_id
        if had_to_sync:
            self.unsynced.add(member_id)
        return member

    def update(self, member: Member, request: JoinRequest) -> None:
        self._count(member, -1)
        member.protocols = request.protocols
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = request.rebalance_timeout_ms
        self._count(member, 1)

    def assign(self, member: Member, assignment: bytes) -> None:
        self.size_bytes += len(assignment) - len(member.assignment)
        member.assignment = assignment

    def await_join(self, member: Member, ticket: int | None) -> int | None:
        """The member waits for a generation under this ticket, or no more; returns the ticket it waited with before."""
        before, member.join_ticket = member.join_ticket, ticket
        self.joining += (ticket is not None) - (before is not None)
        return before

    def _count(self, member: Member, one: int) -> None:
        self.size_bytes += one * member.size_bytes
        for name in {name for name, _ in member.protocols}:
            self._supported[name] += one
            if not self._supported[name]:
                del self._supported[name]

    # --- what they agree on -----------------------------------------------------------------------------------------

    @property
    def have_all_joined(self) -> bool:
        return not self.pending and self.joining == len(self)

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self), default=0)

    def support_one_of(self, names: Iterable[str]) -> bool:
        return any(self._supported[name] == len(self) for name in names)

    def elect_leader(self) -> bool:
        """Keep the leader if it has joined, or else take the first that has; whether there is one."""
        joined = [member.member_id for member in self if member.join_ticket is not None]
        if joined and self.leader not in joined:
            self.leader = joined[0]
        return bool(joined)

    def vote(self) -> str:
        """The protocol most members prefer of those that all support; of equals, the choice of who came first."""
        candidates = {name for name, count in self._supported.items() if count == len(self)}
        votes = Counter(next(name for name, _ in member.protocols if name in candidates) for member in self)
        return votes.most_common(1)[0][0]


def protocols_bytes(protocols: Protocols) -> int:
    return sum(len(name) + len(metadata) for name, metadata in protocols)
