"""One member of a consumer group: joins, keeps up, joins again when the group meets, leaves (Kafka's classic protocol).

What the members say to each other is the owner's affair; here is who speaks when. The group meets cooperatively
(KIP-429): a member goes on with its work while the others arrive.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from streamcore.errors import (
    BrokerUnreachableError,
    FencedInstanceError,
    GroupMembershipError,
    RebalanceInProgressError,
    StreamcoreError,
    UsageError,
)
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.transport.base import Generation, GroupChannel
from streamcore.transport.broker_errors import RETRIABLE, RetriableError, error_of

logger = logging.getLogger(__name__)

_Join = messages.JoinGroup
_Sync = messages.SyncGroup
_Heartbeat = messages.Heartbeat
_Leave = messages.LeaveGroup
PROTOCOL_TYPE: Final = "consumer"
RETRY_FIRST_S: Final = 0.05
RETRY_MOST_S: Final = 1.0
HEARTBEATS_PER_SESSION: Final = 3  # Kafka's advice: two may get lost
# A member learns from its next heartbeat that the group meets, so this is about what a rebalance takes. Kafka has 3 s.
HEARTBEAT_MOST_S: Final = 1.0
JOIN_MARGIN_S: Final = 10.0  # beyond the rebalance timeout, after which a coordinator answers a join in any case
LEAVE_S: Final = 2.0  # a group that is not told finds out by itself
_REFUSALS: Final = {
    ErrorCode.INCONSISTENT_GROUP_PROTOCOL: (
        "its members are other consumers, who do not share partitions as the workers of an app do: "
        "give the app another id"
    ),
    ErrorCode.INVALID_SESSION_TIMEOUT: (
        "the broker does not allow this session_timeout (group.min.session.timeout.ms, group.max.session.timeout.ms)"
    ),
    ErrorCode.GROUP_MAX_SIZE_REACHED: "it is full (group.max.size)",
    ErrorCode.GROUP_AUTHORIZATION_FAILED: "the broker does not allow it",
    ErrorCode.INVALID_GROUP_ID: "the broker does not take this name",
}


class GroupOwner(Protocol):
    """Whose membership it is."""

    def subscription(self, generation_id: int) -> bytes:
        """What the others are to know of this member; made anew for every meeting."""

    async def assign(self, subscriptions: Mapping[str, bytes]) -> dict[str, bytes]:
        """As the leader: an assignment for every member."""

    async def on_assigned(self, assignment: bytes) -> bool:
        """Act on an assignment.

        Returns:
            Whether something was given up, so that the group has to meet again.
        """

    async def on_lost(self) -> None:
        """Nothing that was assigned is ours any more, and nothing of it can be committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberConfig:
    """How a member takes part."""

    group: str
    protocol: str  # the assignor's name
    session_timeout_ms: int  # silent for so long, a member counts as dead
    rebalance_timeout_ms: int  # what a member has time for between two meetings: to finish, commit and close
    group_instance_id: str | None = None  # a name that outlives the process (KIP-345)


class GroupMember:
    """Run it as a task; cancel it, then `leave`."""

    def __init__(self, channel: GroupChannel, owner: GroupOwner, config: MemberConfig) -> None:
        self._channel = channel
        self._owner = owner
        self._config = config
        self._member_id = ""
        self._generation_id = -1
        self._look = asyncio.Event()
        self._is_retired = False
        self.generation: Generation | None = None  # with which offsets are committed; None outside the group
        self.state = "joining"
        self.is_leader = False
        self.failing: str | None = None  # why there is no membership at the moment

    async def run(self) -> None:
        """Be a member until cancelled, or retired and not needed any more.

        Raises:
            UsageError: this member cannot be in the group.
            FencedInstanceError: another process has taken its place.
        """
        delay_s = RETRY_FIRST_S
        while not self._is_retired:
            try:
                await self._attend()
                delay_s = RETRY_FIRST_S
            except FencedInstanceError:
                await self._lose()
                raise
            except GroupMembershipError as error:
                logger.warning("group %s: %s; joining again", self._config.group, error)
                # A member that is about to stop finds out at its last commits.
                if not self._is_retired:
                    await self._lose()
            except (BrokerUnreachableError, RetriableError) as error:
                self._fails(error)
                await asyncio.sleep(delay_s)
                delay_s = min(RETRY_MOST_S, delay_s * 2)

    def retire(self) -> bool:
        """Go to no further meeting, but stay a member of this generation for what is left to commit.

        Returns:
            Whether `run` keeps it up; elsewise it is in the middle of a meeting that it is to be cancelled in.
        """
        self._is_retired = True
        return self.state == "stable"

    async def leave(self) -> None:
        """Tell the group, so that others go on at once and not after the session timeout."""
        member_id, self._member_id, self.generation = self._member_id, "", None
        if not member_id:
            return
        identity = _Leave.MemberIdentity(
            member_id=member_id, group_instance_id=self._config.group_instance_id, reason="the worker stops"
        )
        request = _Leave.Request(group_id=self._config.group, member_id=member_id, members=[identity])
        try:
            await self._channel.ask(_Leave, request, timeout_s=LEAVE_S, purpose="coordinator")
        except StreamcoreError as error:
            logger.debug("group %s was not told that a member leaves: %s", self._config.group, error)

    def look(self) -> None:
        """Something speaks for a change in the group: ask now rather than at the next heartbeat."""
        self._look.set()

    async def _lose(self) -> None:
        self._member_id, self._generation_id, self.generation = "", -1, None
        self.state, self.is_leader = "joining", False
        await self._owner.on_lost()

    def _fails(self, error: StreamcoreError) -> None:
        if self.failing is None:
            logger.error("group %s: %s; trying on", self._config.group, error)
        self.failing = f"group {self._config.group}: {error}"

    async def _attend(self) -> None:
        """One meeting, and the time until the next one is due."""
        assignment, has_to_meet_again = await self._meet()
        self.failing = None
        heartbeats = asyncio.create_task(self._keep_up(), name=f"heartbeats in {self._config.group}")
        try:
            gave_up = await self._owner.on_assigned(assignment)
            if not gave_up and not has_to_meet_again:
                await heartbeats
            elif heartbeats.done():
                heartbeats.result()
        finally:
            heartbeats.cancel()
            await asyncio.gather(heartbeats, return_exceptions=True)

    async def _meet(self) -> tuple[bytes, bool]:
        """Join and sync; this member's assignment, and whether the group ought to meet again at once."""
        while True:
            self.state = "joining"
            joined = await self._join()
            self.is_leader = joined.leader == joined.member_id
            assignments: list[Any] = []
            if self.is_leader and not joined.skip_assignment:
                metadata = {member.member_id: bytes(member.metadata) for member in joined.members}
                assignments = [
                    _Sync.SyncGroupRequestAssignment(member_id=member_id, assignment=data)
                    for member_id, data in (await self._owner.assign(metadata)).items()
                ]
            self.state = "syncing"
            request = _Sync.Request(
                group_id=self._config.group,
                generation_id=joined.generation_id,
                member_id=joined.member_id,
                group_instance_id=self._config.group_instance_id,
                protocol_type=PROTOCOL_TYPE,
                protocol_name=self._config.protocol,
                assignments=assignments,
            )
            synced = await self._channel.ask(_Sync, request, timeout_s=self._meeting_s)
            if synced.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
                continue
            self._check(synced.error_code)
            self._generation_id = joined.generation_id
            self.generation = Generation(joined.generation_id, joined.member_id, self._config.group_instance_id)
            self.state = "stable"
            # A leader that comes back under its name gets what it had. The topics may have changed (KIP-814).
            return bytes(synced.assignment), self.is_leader and joined.skip_assignment

    @property
    def _meeting_s(self) -> float:
        return self._config.rebalance_timeout_ms / 1000 + JOIN_MARGIN_S

    async def _join(self) -> Any:
        config = self._config
        while True:
            request = _Join.Request(
                group_id=config.group,
                session_timeout_ms=config.session_timeout_ms,
                rebalance_timeout_ms=config.rebalance_timeout_ms,
                member_id=self._member_id,
                group_instance_id=config.group_instance_id,
                protocol_type=PROTOCOL_TYPE,
                protocols=[
                    _Join.JoinGroupRequestProtocol(
                        name=config.protocol, metadata=self._owner.subscription(self._generation_id)
                    )
                ],
            )
            joined = await self._channel.ask(_Join, request, timeout_s=self._meeting_s)
            if joined.error_code == ErrorCode.MEMBER_ID_REQUIRED:
                self._member_id = joined.member_id
                continue
            if joined.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
                continue
            self._check(joined.error_code)
            self._member_id = joined.member_id
            return joined

    async def _keep_up(self) -> None:
        """Heartbeats, until the group meets."""
        interval_s = min(HEARTBEAT_MOST_S, self._config.session_timeout_ms / 1000 / HEARTBEATS_PER_SESSION)
        wait_s = interval_s
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            request = _Heartbeat.Request(
                group_id=self._config.group,
                generation_id=self._generation_id,
                member_id=self._member_id,
                group_instance_id=self._config.group_instance_id,
            )
            try:
                response = await self._channel.ask(_Heartbeat, request, timeout_s=interval_s)
                self._check(response.error_code)
            except RebalanceInProgressError:
                if not self._is_retired:
                    return
            except (BrokerUnreachableError, RetriableError) as error:
                # The partitions stay ours until a coordinator says otherwise: without one nobody can commit in them.
                self._fails(error)
                wait_s = min(RETRY_MOST_S, interval_s)
            else:
                if self.failing is not None:
                    logger.info("group %s: its coordinator answers again", self._config.group)
                self.failing, wait_s = None, interval_s

    def _check(self, code: int) -> None:
        if not code:
            return
        if code in RETRIABLE:
            self._channel.moved()
        elif code in _REFUSALS:
            raise UsageError(f"this worker cannot be in group {self._config.group}: {_REFUSALS[ErrorCode(code)]}")
        if code == ErrorCode.FENCED_INSTANCE_ID:
            raise FencedInstanceError(
                f"another worker has joined group {self._config.group} as {self._config.group_instance_id!r}: "
                "every worker has a group_instance_id of its own, or none"
            )
        raise error_of(code, None, f"group {self._config.group}")
