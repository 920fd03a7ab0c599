"""One classic consumer group as a state machine: requests and times in, answers and records out.

Here is what members ask for; `group_rebalance` is what follows from it, `group_states` the table of states.
"""

from collections.abc import Callable, Iterable

from streamcore.broker.coordinator.group_config import MEMBER_ID_PREFIX_MAX_CHARS, GroupConfig
from streamcore.broker.coordinator.group_members import Member
from streamcore.broker.coordinator.group_messages import (
    NO_MEMBER_ID,
    GroupError,
    GroupMetadata,
    JoinRequest,
    JoinResult,
    Outbox,
    Reply,
    SyncRequest,
    SyncResult,
)
from streamcore.broker.coordinator.group_rebalance import Rebalance
from streamcore.broker.coordinator.group_states import (
    COMMIT_ANSWERS,
    COMPLETING,
    EMPTY,
    HEARTBEAT_ANSWERS,
    PREPARING,
    STABLE,
    Event,
)
from streamcore.broker.coordinator.offset_expiry import CONSUMERS


class Group(Rebalance):
    """One group, as its members speak to it."""

    def __init__(self, group_id: str, config: GroupConfig, outbox: Outbox, new_id: Callable[[], str]) -> None:
        super().__init__(group_id, config, outbox)
        self._new_id = new_id

    # --- joining ------------------------------------------------------------------------------------------------------

    def join(self, ticket: int, request: JoinRequest, now_ms: int) -> None:
        if not self._has_room_for(request):
            self._refuse_join(ticket, NO_MEMBER_ID, GroupError.GROUP_MAX_SIZE_REACHED)
            if request.member_id in self.members:
                self.remove(request.member_id)
                self.after_leaving(now_ms)
        elif not self._supports(request):
            self._refuse_join(ticket, request.member_id, GroupError.INCONSISTENT_GROUP_PROTOCOL)
        elif request.member_id == NO_MEMBER_ID:
            self._join_new(ticket, request, now_ms)
        elif request.member_id in self.members.pending and request.group_instance_id is None:
            self._admit(ticket, request.member_id, request, now_ms)
        else:
            self._join_known(ticket, request, now_ms)

    def _has_room_for(self, request: JoinRequest) -> bool:
        max_size = self.config.group_max_size
        member_id = request.member_id
        if member_id == NO_MEMBER_ID and request.group_instance_id is not None:
            # A static member that restarts takes its own place.
            member_id = self.members.static_member_id(request.group_instance_id) or NO_MEMBER_ID
        member = self.members.get(member_id)
        if self.state is EMPTY:
            return True
        if self.state is PREPARING:
            # Not everybody who was in the last generation comes back: those who came count.
            return (member is not None and member.join_ticket is not None) or self.members.joining < max_size
        return member is not None or len(self.members) < max_size

    def _supports(self, request: JoinRequest) -> bool:
        if self.state is EMPTY:
            return bool(request.protocol_type and request.protocols)
        names = (name for name, _ in request.protocols)
        return request.protocol_type == self.protocol_type and self.members.support_one_of(names)

    def _join_new(self, ticket: int, request: JoinRequest, now_ms: int) -> None:
        instance_id = request.group_instance_id
        name = request.client_id if instance_id is None else instance_id
        member_id = f"{name[:MEMBER_ID_PREFIX_MAX_CHARS]}-{self._new_id()}"
        if instance_id is None and request.requires_known_member_id:
            pending = self.members.pending
            if len(pending) >= self.config.group_max_size:
                del pending[next(iter(pending))]  # the oldest; if it is alive, it asks again
            pending[member_id] = self.wake_at(now_ms + request.session_timeout_ms)
            self._refuse_join(ticket, member_id, GroupError.MEMBER_ID_REQUIRED)
            return
        old_member_id = self.members.static_member_id(instance_id) if instance_id is not None else None
        if old_member_id is None:
            self._admit(ticket, member_id, request, now_ms)
        else:
            self._replace(ticket, self.members[old_member_id], member_id, request, now_ms)

    def _admit(self, ticket: int, member_id: str, request: JoinRequest, now_ms: int) -> None:
        if self.state is EMPTY:
            self.protocol_type = request.protocol_type
        self._new_member_came = True
        member = Member.of(member_id, request)
        self.members.add(member)
        self.members.await_join(member, ticket)
        self.touch(member, now_ms)
        self.rebalance(now_ms)

    def _join_known(self, ticket: int, request: JoinRequest, now_ms: int) -> None:
        error = self.members.error_of(request.member_id, request.group_instance_id)
        if error:
            self._refuse_join(ticket, request.member_id, error)
            return
        member = self.members[request.member_id]
        leads = self.members.leader == member.member_id
        if member.protocols == request.protocols and (self.state is COMPLETING or (self.state is STABLE and not leads)):
            # It missed the answer, or nothing has changed for it. A leader of a stable group wants a rebalance.
            self.touch(member, now_ms)
            self.outbox.replies.append(Reply(ticket, self.joined(member)))
        else:
            self._join_again(ticket, member, request, now_ms)
            self.rebalance(now_ms)

    def _join_again(self, ticket: int, member: Member, request: JoinRequest, now_ms: int) -> None:
        self.answer_join(member, JoinResult(GroupError.REBALANCE_IN_PROGRESS, member_id=member.member_id))
        self.members.update(member, request)
        self.members.await_join(member, ticket)
        self.touch(member, now_ms)

    def _replace(self, ticket: int, member: Member, member_id: str, request: JoinRequest, now_ms: int) -> None:
        """A static member has restarted: it takes its old place, and who still speaks from there is fenced."""
        led = self.members.leader == member.member_id
        old_member_id = member.member_id
        self.answer_join(member, JoinResult(GroupError.FENCED_INSTANCE_ID, member_id=old_member_id))
        self.answer_sync(member, SyncResult(GroupError.FENCED_INSTANCE_ID))
        self.members.rename(member, member_id)
        member.client_id, member.client_host = request.client_id, request.client_host
        self._join_again(ticket, member, request, now_ms)
        if self.state is not STABLE or self.members.vote() != self.protocol_name:
            # While the leader assigns, it knows the old id only, and the new one would be left without an assignment.
            self.rebalance(now_ms)
            return
        result = self.joined(member)
        if led and request.supports_skip_assignment:
            result = result._replace(skip_assignment=True)
        elif led:
            # Under its old name as leader, it does not take itself for one and leaves the assignment as it is.
            result = result._replace(leader=old_member_id, members=())
        member.answer_after_write = (self.write({m.member_id: m.assignment for m in self.members}), result)

    def _refuse_join(self, ticket: int, member_id: str, error: GroupError) -> None:
        self.outbox.replies.append(Reply(ticket, JoinResult(error, member_id=member_id)))

    # --- the assignment -----------------------------------------------------------------------------------------------

    def sync(self, ticket: int, request: SyncRequest, now_ms: int) -> None:
        error = self._sync_error(request)
        if error:
            self.outbox.replies.append(Reply(ticket, SyncResult(error)))
            return
        member = self.members[request.member_id]
        self.await_assignment(member, ticket, now_ms)
        if self.state is STABLE:
            self.answer_sync(member, self.assigned(member))
        elif self.members.leader == member.member_id:
            self.write_assignments(request.assignments)

    def _sync_error(self, request: SyncRequest) -> GroupError:
        error = self.members.error_of(request.member_id, request.group_instance_id)
        if error:
            return error
        if request.generation_id != self.generation_id:
            return GroupError.ILLEGAL_GENERATION
        if request.protocol_type not in (None, self.protocol_type):
            return GroupError.INCONSISTENT_GROUP_PROTOCOL
        if self.state is PREPARING:
            return GroupError.REBALANCE_IN_PROGRESS
        if request.protocol_name not in (None, self.protocol_name):
            return GroupError.INCONSISTENT_GROUP_PROTOCOL
        return GroupError.NONE

    # --- members that are heard of, or leave --------------------------------------------------------------------------

    def heartbeat(self, generation_id: int, member_id: str, instance_id: str | None, now_ms: int) -> GroupError:
        error = self.members.error_of(member_id, instance_id)
        if error:
            return error
        if generation_id != self.generation_id:
            return GroupError.ILLEGAL_GENERATION
        self.touch(self.members[member_id], now_ms)
        return HEARTBEAT_ANSWERS[self.state]

    def check_commit(self, generation_id: int, member_id: str, instance_id: str | None, now_ms: int) -> GroupError:
        if self.state is EMPTY and generation_id < 0:
            return GroupError.NONE  # a consumer that assigns its partitions itself, or an administrator
        if generation_id < 0 and member_id == NO_MEMBER_ID and instance_id is None:
            return GroupError.UNKNOWN_MEMBER_ID
        error = self.heartbeat(generation_id, member_id, instance_id, now_ms)
        if error in (GroupError.NONE, GroupError.REBALANCE_IN_PROGRESS):
            return COMMIT_ANSWERS[self.state]
        return error

    def leave(self, members: list[tuple[str, str | None]], now_ms: int) -> list[GroupError]:
        """Each member by its id; a static one also by its instance id alone, which is how administrators remove it."""
        errors = [self._leave(member_id, instance_id) for member_id, instance_id in members]
        if GroupError.NONE in errors:
            self.after_leaving(now_ms)
        return errors

    def _leave(self, member_id: str, instance_id: str | None) -> GroupError:
        if member_id == NO_MEMBER_ID and instance_id is not None:
            member_id = self.members.static_member_id(instance_id) or NO_MEMBER_ID
        if self.members.pending.pop(member_id, None) is not None:
            return GroupError.NONE
        error = self.members.error_of(member_id, instance_id)
        if not error:
            self.remove(member_id)
        return error

    # --- the group as a whole -----------------------------------------------------------------------------------------

    def delete(self) -> GroupError:
        if self.state is not EMPTY:
            return GroupError.NON_EMPTY_GROUP
        self.step(Event.DELETED)
        return GroupError.NONE

    def restore(self, metadata: GroupMetadata) -> None:
        """Be the group that the log tells of; `start` gives its members their time."""
        assert not self.has_record, "only a group that has just been made can be restored"
        self.stored, self.has_record = metadata, True
        self.generation_id = metadata.generation_id
        self.protocol_type, self.protocol_name = metadata.protocol_type, metadata.protocol_name
        for stored in metadata.members:
            self.members.add(Member.restored(stored, metadata.protocol_name or ""))
        if metadata.leader in self.members:
            self.members.leader = metadata.leader
        self.state = STABLE if metadata.members else EMPTY

    def adopt(self, generation_id: int, members: Iterable[Member], now_ms: int) -> None:
        """Be what a consumer group has been (KIP-848), and let its members join again.

        Args:
            members: of the protocol type of consumers, with one protocol at least that all of them support.
        """
        self.generation_id, self.protocol_type = generation_id, CONSUMERS
        for member in members:
            member.is_new = False
            self.members.add(member)
            self.touch(member, now_ms)
        self.protocol_name = self.members.vote()
        self.state = STABLE
        self.write({member.member_id: member.assignment for member in self.members})
        self.rebalance(now_ms)

    def retire(self) -> None:
        """It goes on as a consumer group: whoever waits is to join that one."""
        for member in self.members:
            self.answer_join(member, JoinResult(GroupError.REBALANCE_IN_PROGRESS, member_id=member.member_id))
            self.answer_sync(member, SyncResult(GroupError.REBALANCE_IN_PROGRESS))

    def start(self, now_ms: int) -> None:
        """A restored group is in use from now on."""
        for member in self.members:
            self.touch(member, now_ms)
        if self.state is EMPTY:
            self.rest(now_ms)

    @property
    def is_vacant(self) -> bool:
        """Whether it is a group in name only."""
        return self.state is EMPTY and not self.members.pending and not self.has_record

    def is_expired(self, now_ms: int) -> bool:
        """Whether nobody has been here for so long that the group can go."""
        return self.state is EMPTY and not self.members.pending and self._retention_deadline_ms <= now_ms
