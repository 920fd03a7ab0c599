"""Groups driven by hand: a clock that is told the time, requests with everything filled in."""

from collections.abc import Iterable, Mapping

from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_messages import (
    GroupError,
    JoinRequest,
    JoinResult,
    SyncRequest,
    SyncResult,
    Write,
)
from streamcore.broker.coordinator.groups import Groups

RANGE = (("range", b"topics"),)
SESSION_MS = 10_000
REBALANCE_MS = 60_000
AT_ONCE = GroupConfig(group_initial_rebalance_delay_ms=0)


class DrivenGroups:
    """`Groups` with answers by ticket, and a log that takes everything unless it is told to wait."""

    def __init__(self, config: GroupConfig = AT_ONCE, *, offset_groups: Iterable[str] = ()) -> None:
        self.now_ms = 1000
        self.answers: dict[int, JoinResult | SyncResult] = {}
        self.log: list[Write] = []
        self.writes_at_once = True
        self._ids = 0
        self._tickets = 0
        self.groups = Groups(config, offset_groups=lambda: list(offset_groups), new_id=self._new_id)

    def _new_id(self) -> str:
        self._ids += 1
        return str(self._ids)

    def settle(self, error: GroupError = GroupError.NONE) -> None:
        """Let what is to be written reach the log, or fail."""
        while self.groups.has_writes:
            for write in self.groups.take_writes():
                if not error:
                    self.log.append(write)
                self.groups.written(write, error, self.now_ms)
        self._collect()

    def _collect(self) -> None:
        if self.writes_at_once and self.groups.has_writes:
            self.settle()
        for ticket, result in self.groups.take_replies():
            assert ticket not in self.answers, "answered twice"
            self.answers[ticket] = result

    def join(
        self,
        member_id: str = "",
        *,
        group_id: str = "g",
        instance: str | None = None,
        client_id: str = "c",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        protocol_type: str = "consumer",
        protocols: tuple[tuple[str, bytes], ...] = RANGE,
        needs_id: bool = False,
        skip: bool = False,
    ) -> int:
        self._tickets += 1
        request = JoinRequest(
            group_id=group_id,
            member_id=member_id,
            group_instance_id=instance,
            client_id=client_id,
            client_host="/127.0.0.1",
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            protocol_type=protocol_type,
            protocols=protocols,
            requires_known_member_id=needs_id,
            supports_skip_assignment=skip,
        )
        self.groups.join(self._tickets, request, self.now_ms)
        self._collect()
        return self._tickets

    def sync(
        self,
        member_id: str,
        generation_id: int,
        assignments: Mapping[str, bytes] | None = None,
        *,
        group_id: str = "g",
        instance: str | None = None,
        protocol_type: str | None = "consumer",
        protocol_name: str | None = "range",
    ) -> int:
        self._tickets += 1
        request = SyncRequest(
            group_id=group_id,
            generation_id=generation_id,
            member_id=member_id,
            group_instance_id=instance,
            protocol_type=protocol_type,
            protocol_name=protocol_name,
            assignments=dict(assignments or {}),
        )
        self.groups.sync(self._tickets, request, self.now_ms)
        self._collect()
        return self._tickets

    def heartbeat(self, member_id: str, generation_id: int, instance: str | None = None, group_id: str = "g") -> int:
        error = self.groups.heartbeat(group_id, generation_id, member_id, instance, self.now_ms)
        self._collect()
        return error

    def leave(self, *members: tuple[str, str | None], group_id: str = "g") -> list[int]:
        result = self.groups.leave(group_id, members, self.now_ms)
        self._collect()
        return [member.error_code for member in result.members]

    def check_commit(self, member_id: str, generation_id: int, instance: str | None = None, group_id: str = "g") -> int:
        return self.groups.check_commit(group_id, generation_id, member_id, instance, self.now_ms)

    def pass_time(self, milliseconds: int) -> None:
        """Every deadline on the way is met at its time."""
        end_ms = self.now_ms + milliseconds
        while (deadline_ms := self.groups.next_deadline_ms) is not None and deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, deadline_ms)
            self.groups.expire(self.now_ms)
            self._collect()
        self.now_ms = end_ms

    def joined(self, ticket: int) -> JoinResult:
        result = self.answers[ticket]
        assert isinstance(result, JoinResult)
        return result

    def synced(self, ticket: int) -> SyncResult:
        result = self.answers[ticket]
        assert isinstance(result, SyncResult)
        return result

    def waits(self, ticket: int) -> bool:
        return ticket not in self.answers

    @property
    def state(self) -> str:
        return self.groups.describe("g").state

    def stable_group(self, count: int = 1, *, instances: tuple[str | None, ...] = (), **options: int) -> list[str]:
        """A stable group; the ids of its members, the leader first, each with its own number as assignment."""
        instances = instances or (None,) * count
        members: list[str] = []
        for instance in instances:
            new = self.join(instance=instance, **options)
            known = zip(members, instances, strict=False)
            tickets = [*(self.join(member_id, instance=name, **options) for member_id, name in known), new]
            members = [self.joined(ticket).member_id for ticket in tickets]
            generation_id = self.joined(new).generation_id
            given = {member_id: str(number).encode() for number, member_id in enumerate(members)}
            for member_id in members:
                self.sync(member_id, generation_id, given)
        assert self.state == "Stable"
        return members

    @property
    def generation(self) -> int:
        return self.groups._groups["g"].generation_id
