"""How a group gets from one generation to the next: everybody joins, the leader assigns, everybody is told.

A join waits for everybody who is known, or the largest rebalance timeout. A sync waits for the leader's assignment to
be written. A member of whom nothing is heard for its session timeout is dead.
"""

from collections.abc import Mapping

from streamcore.broker.coordinator.deadlines import NEVER
from streamcore.broker.coordinator.group_config import (
    EMPTY_GROUP_RETENTION_MS,
    NEW_MEMBER_JOIN_TIMEOUT_MS,
    POSTPONED_JOIN_MIN_MS,
    GroupConfig,
)
from streamcore.broker.coordinator.group_members import Member, Members
from streamcore.broker.coordinator.group_messages import (
    NO_MEMBER_ID,
    GroupError,
    GroupMetadata,
    JoinedMember,
    JoinResult,
    Outbox,
    Reply,
    SyncResult,
    Write,
)
from streamcore.broker.coordinator.group_states import EMPTY, PREPARING, TRANSITIONS, Event
from streamcore.broker.coordinator.group_views import metadata_of


class Rebalance:
    """A group's members, generation and deadlines. Times are milliseconds of a clock that only goes forward."""

    def __init__(self, group_id: str, config: GroupConfig, outbox: Outbox) -> None:
        self.group_id = group_id
        self.state = EMPTY
        self.generation_id = 0
        self.protocol_type: str | None = None
        self.protocol_name: str | None = None
        self.members = Members()
        self.wake_ms = NEVER  # nothing here is due before
        self.has_record = False  # whether there may be one in the log
        self.stored: GroupMetadata | None = None  # what the log says
        self.config = config
        self.outbox = outbox
        self._join_deadline_ms = NEVER
        self._sync_deadline_ms = NEVER
        self._retention_deadline_ms = NEVER
        # The first rebalance of a group waits again for as long as members keep coming; None in any other rebalance.
        self._first_join_left_ms: int | None = None
        self._new_member_came = False
        self._assignments: dict[str, bytes] = {}
        self._assignments_write: int | None = None  # the write that must succeed before they are handed out

    def step(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]

    # --- the join phase -----------------------------------------------------------------------------------------------

    def rebalance(self, now_ms: int) -> None:
        """Start one, or see whether the one under way is complete."""
        if self.state is not PREPARING:
            self._prepare(now_ms)
        elif self.members.have_all_joined and self._first_join_left_ms is None:
            self._complete_join(now_ms)

    def _prepare(self, now_ms: int) -> None:
        is_first = self.state is EMPTY
        self.step(Event.REBALANCE)
        self._sync_deadline_ms = NEVER
        self._retention_deadline_ms = NEVER
        self._assignments_write, self._assignments = None, {}
        for member in self.members:
            member.answer_after_write = None
            if self.answer_sync(member, SyncResult(GroupError.REBALANCE_IN_PROGRESS)):
                self.touch(member, now_ms)
        delay_ms = self.config.group_initial_rebalance_delay_ms
        if is_first and delay_ms > 0:
            self._new_member_came = False
            self._first_join_left_ms = max(self.members.rebalance_timeout_ms - delay_ms, 0)
            self._join_deadline_ms = self.wake_at(now_ms + delay_ms)
        elif is_first or self.members.have_all_joined:
            self._complete_join(now_ms)
        else:
            self._join_deadline_ms = self.wake_at(now_ms + self.members.rebalance_timeout_ms)

    def _join_timed_out(self, now_ms: int) -> None:
        if self._first_join_left_ms and self._new_member_came:
            delay_ms = min(self.config.group_initial_rebalance_delay_ms, self._first_join_left_ms)
            self._new_member_came = False
            self._first_join_left_ms -= delay_ms
            self._join_deadline_ms = self.wake_at(now_ms + delay_ms)
        else:
            self._complete_join(now_ms)

    def _complete_join(self, now_ms: int) -> None:
        self._first_join_left_ms, self._join_deadline_ms = None, NEVER
        for member in list(self.members):
            if member.join_ticket is None and member.group_instance_id is None:
                self.remove(member.member_id)
        if self.members and not self.members.elect_leader():
            # Static members stay until their sessions end, and one of them may still come.
            postponed_ms = max(self.members.rebalance_timeout_ms, POSTPONED_JOIN_MIN_MS)
            self._join_deadline_ms = self.wake_at(now_ms + postponed_ms)
            return
        self.generation_id += 1
        self.outbox.generations += 1
        self.members.unsynced = {member.member_id for member in self.members}
        if not self.members:
            self.step(Event.NOBODY_JOINED)
            self.protocol_name = None
            self.write({})
            self.rest(now_ms)
            return
        self.step(Event.MEMBERS_JOINED)
        self.protocol_name = self.members.vote()
        self._sync_deadline_ms = self.wake_at(now_ms + self.members.rebalance_timeout_ms)
        for member in self.members:
            member.is_new = False
            if self.answer_join(member, self.joined(member)):
                self.touch(member, now_ms)  # of one that has not joined nothing was heard

    def joined(self, member: Member) -> JoinResult:
        leads = self.members.leader == member.member_id
        return JoinResult(
            GroupError.NONE,
            self.generation_id,
            self.protocol_type,
            self.protocol_name,
            self.members.leader or NO_MEMBER_ID,
            member_id=member.member_id,
            members=tuple(
                JoinedMember(other.member_id, other.group_instance_id, other.metadata(self.protocol_name))
                for other in (self.members if leads else ())
            ),
        )

    # --- the assignment -----------------------------------------------------------------------------------------------

    def await_assignment(self, member: Member, ticket: int, now_ms: int) -> None:
        self.answer_sync(member, SyncResult(GroupError.REBALANCE_IN_PROGRESS))
        member.sync_ticket = ticket
        self.touch(member, now_ms)
        self.members.unsynced.discard(member.member_id)
        if not self.members.unsynced:
            self._sync_deadline_ms = NEVER

    def write_assignments(self, given: Mapping[str, bytes]) -> None:
        """Hand out what the leader gives to each, nothing to those it leaves out, once that is written."""
        if self._assignments_write is None:
            self._assignments = {member.member_id: given.get(member.member_id, b"") for member in self.members}
            self._assignments_write = self.write(self._assignments)

    def written(self, write: Write, error: GroupError, now_ms: int) -> None:
        """A write has reached the log, or has failed for good."""
        if not error:
            self.stored = write.metadata
        if self._assignments_write is not None and self._assignments_write <= write.number:
            self._assignments_written(error, now_ms)
        for member in self.members:
            if member.answer_after_write is not None and member.answer_after_write[0] <= write.number:
                result = member.answer_after_write[1]
                # It has its place all the same; when it asks again, that is written again.
                self.answer_join(member, JoinResult(error) if error else result)
                member.answer_after_write = None
                self.touch(member, now_ms)

    def _assignments_written(self, error: GroupError, now_ms: int) -> None:
        if not error:
            self.step(Event.ASSIGNED)
        for member in self.members:
            if not error:
                self.members.assign(member, self._assignments[member.member_id])
            if self.answer_sync(member, SyncResult(error) if error else self.assigned(member)):
                self.touch(member, now_ms)
        self._assignments_write, self._assignments = None, {}
        if error:
            self._prepare(now_ms)

    def assigned(self, member: Member) -> SyncResult:
        return SyncResult(GroupError.NONE, self.protocol_type, self.protocol_name, member.assignment)

    # --- answers and records ------------------------------------------------------------------------------------------

    def answer_join(self, member: Member, result: JoinResult) -> bool:
        """Answer the member's join, if it waits for one; whether it did."""
        ticket = self.members.await_join(member, None)
        member.answer_after_write = None
        if ticket is not None:
            self.outbox.replies.append(Reply(ticket, result))
        return ticket is not None

    def answer_sync(self, member: Member, result: SyncResult) -> bool:
        ticket, member.sync_ticket = member.sync_ticket, None
        if ticket is not None:
            self.outbox.replies.append(Reply(ticket, result))
        return ticket is not None

    def write(self, assignments: Mapping[str, bytes]) -> int:
        self.has_record = True
        return self.outbox.write(self.group_id, metadata_of(self, assignments))

    # --- members that die, and other deadlines ------------------------------------------------------------------------

    def touch(self, member: Member, now_ms: int) -> None:
        """The member is alive."""
        timeout_ms = NEW_MEMBER_JOIN_TIMEOUT_MS if member.is_new else member.session_timeout_ms
        member.deadline_ms = self.wake_at(now_ms + timeout_ms)

    def rest(self, now_ms: int) -> None:
        self._retention_deadline_ms = self.wake_at(now_ms + EMPTY_GROUP_RETENTION_MS)

    def wake_at(self, deadline_ms: int) -> int:
        self.wake_ms = min(self.wake_ms, deadline_ms)
        return deadline_ms

    def expire(self, now_ms: int) -> None:
        """Do what is due."""
        if self._expire_members(now_ms):
            self.after_leaving(now_ms)
        if self._join_deadline_ms <= now_ms:
            self._join_timed_out(now_ms)
        if self._sync_deadline_ms <= now_ms:
            self._sync_deadline_ms = NEVER
            for member_id in list(self.members.unsynced):
                self.remove(member_id)
            self.rebalance(now_ms)
        deadlines = [self._join_deadline_ms, self._sync_deadline_ms, self._retention_deadline_ms]
        deadlines += (member.deadline_ms for member in self.members)
        deadlines += self.members.pending.values()
        self.wake_ms = min(deadlines)

    def _expire_members(self, now_ms: int) -> bool:
        pending = self.members.pending
        gone = [member_id for member_id, deadline_ms in pending.items() if deadline_ms <= now_ms]
        for member_id in gone:
            del pending[member_id]
        late = [member for member in self.members if member.deadline_ms <= now_ms]
        for member in late:
            if member.is_waiting and not member.is_new:
                member.deadline_ms = NEVER  # it is we who keep it waiting; its time starts with the answer
            else:
                self.remove(member.member_id)
        return bool(gone) or any(member.member_id not in self.members for member in late)

    def remove(self, member_id: str) -> None:
        member = self.members[member_id]
        self.answer_join(member, JoinResult(GroupError.UNKNOWN_MEMBER_ID))
        self.answer_sync(member, SyncResult(GroupError.UNKNOWN_MEMBER_ID))
        self.members.remove(member_id)

    def after_leaving(self, now_ms: int) -> None:
        if self.state is EMPTY:
            self.rest(now_ms)
        else:
            self.rebalance(now_ms)
