"""One consumer group as a state machine: heartbeats, topics and times in, answers and changes out.

What a group is follows from its changes alone, which are applied as they are made and again when they are read back.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING, Assignment, difference, is_within
from streamcore.broker.coordinator.consumer_groups.assignors import ASSIGNORS, Candidate
from streamcore.broker.coordinator.consumer_groups.changes import Change, Changes, Kind, Value
from streamcore.broker.coordinator.consumer_groups.messages import (
    ConsumerGroupState,
    GroupEpoch,
    GroupRefusedError,
    HeartbeatRequest,
    HeartbeatResult,
    MemberMetadata,
    ResolvedRegex,
)
from streamcore.broker.coordinator.consumer_groups.reconciliation import (
    JOINING_EPOCH,
    STATIC_LEAVING_EPOCH,
    CurrentAssignment,
    MemberState,
    next_step,
)
from streamcore.broker.coordinator.consumer_groups.topics import Topics, matching
from streamcore.broker.coordinator.deadlines import NEVER
from streamcore.broker.coordinator.group_config import (
    EMPTY_GROUP_RETENTION_MS,
    MEMBER_OVERHEAD_BYTES,
    GroupConfig,
)
from streamcore.broker.coordinator.group_messages import GroupError

_NO_METADATA: Final = MemberMetadata(None, None, "", "", (), None, -1, None)
_NO_TOPICS_YET: Final = -1  # a revision that no topics have


@dataclass(slots=True)
class ConsumerMember:
    """One consumer: what it is, how far it has come, and until when it has to be heard of."""

    member_id: str
    metadata: MemberMetadata = _NO_METADATA
    current: CurrentAssignment = field(default_factory=CurrentAssignment)
    session_deadline_ms: int = NEVER
    rebalance_deadline_ms: int = NEVER  # to let go of what it has to let go of
    join_deadline_ms: int = NEVER  # of a classic member that has to join again
    sync_deadline_ms: int = NEVER  # and of one that has joined

    @property
    def deadline_ms(self) -> int:
        return min(self.session_deadline_ms, self.rebalance_deadline_ms, self.join_deadline_ms, self.sync_deadline_ms)

    @property
    def subscription(self) -> tuple[tuple[str, ...], str | None]:
        return self.metadata.topic_names, self.metadata.topic_regex or None


class ConsumerGroup:
    """The members of one group, its epochs, and who has and who shall have which partitions."""

    def __init__(self, group_id: str, config: GroupConfig, changes: Changes) -> None:
        self.group_id = group_id
        self.config = config
        self.epoch = 0
        self.target_epoch = 0
        self.members: dict[str, ConsumerMember] = {}
        self.target: dict[str, Assignment] = {}
        self.wake_ms = NEVER  # nothing here is due before
        self.size_bytes = 0
        self.last_change = 0  # the number of the latest change that was made here
        self._changes = changes
        self._static: dict[str, str] = {}
        # Who has a partition, or may still have it: nobody else is given it.
        self._owners: dict[UUID, dict[int, str]] = {}
        self._retention_deadline_ms = NEVER  # counts while there is no member
        self._topics_hash = 0
        self._regexes: dict[str, ResolvedRegex] = {}
        self._seen_revision = _NO_TOPICS_YET
        self._seen_names: frozenset[str] = frozenset()
        self._subscriptions: Counter[tuple[tuple[str, ...], str | None]] = Counter()
        self._assignors: Counter[str] = Counter()

    # --- what others see ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConsumerGroupState:
        if not self.members:
            return ConsumerGroupState.EMPTY
        if self.epoch > self.target_epoch:
            return ConsumerGroupState.ASSIGNING
        if all(member.current.is_at(self.target_epoch) for member in self.members.values()):
            return ConsumerGroupState.STABLE
        return ConsumerGroupState.RECONCILING

    @property
    def assignor(self) -> str:
        """What most members ask for, of those that ask."""
        asked = self._assignors.most_common(1)
        return asked[0][0] if asked else self.config.consumer_assignors[0]

    def subscribed_topics(self) -> set[str]:
        """The names of all topics that somebody subscribes to, whether they exist or not."""
        return {name for subscription in self._subscriptions for name in self._topics_of(subscription)}

    def member(self, member_id: str) -> ConsumerMember:
        """
        Raises:
            GroupRefusedError: UNKNOWN_MEMBER_ID.
        """
        found = self.members.get(member_id)
        if found is None:
            raise GroupRefusedError(
                GroupError.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of group {self.group_id}."
            )
        return found

    def static_member_id(self, instance_id: str) -> str | None:
        return self._static.get(instance_id)

    def static_member(self, instance_id: str) -> ConsumerMember:
        """
        Raises:
            GroupRefusedError: UNKNOWN_MEMBER_ID.
        """
        member_id = self._static.get(instance_id)
        if member_id is None:
            raise GroupRefusedError(GroupError.UNKNOWN_MEMBER_ID, f"Instance id {instance_id} is unknown.")
        return self.members[member_id]

    # --- members that are alive ---------------------------------------------------------------------------------------

    def heartbeat(self, request: HeartbeatRequest, member_id: str, topics: Topics, now_ms: int) -> HeartbeatResult:
        """A member joins, is alive, has let go of partitions or got them; its next step.

        Raises:
            GroupRefusedError: nothing has changed.
        """
        self.check_room(member_id)
        known = self._known(request, member_id)
        metadata = _updated(known.metadata if known is not None else _NO_METADATA, request)
        had = known.current.assigned if known is not None else NOTHING
        if known is not None and request.member_epoch == JOINING_EPOCH and request.instance_id is not None:
            self.replace(known, member_id)
        self.update(member_id, metadata, topics)
        member = self.members[member_id]
        self.reconcile(member, request.owned, now_ms)
        member.session_deadline_ms = self.wake_at(now_ms + self.config.consumer_session_timeout_ms)
        return HeartbeatResult(
            GroupError.NONE,
            member_id=member.member_id,
            member_epoch=member.current.epoch,
            heartbeat_interval_ms=self.config.consumer_heartbeat_interval_ms,
            assignment=member.current.assigned if request.is_full or member.current.assigned != had else None,
        )

    def check_room(self, member_id: str) -> None:
        """
        Raises:
            GroupRefusedError: GROUP_MAX_SIZE_REACHED.
        """
        if len(self.members) >= self.config.consumer_max_size and member_id not in self.members:
            raise GroupRefusedError(
                GroupError.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {self.config.consumer_max_size} members.",
            )

    def _known(self, request: HeartbeatRequest, member_id: str) -> ConsumerMember | None:
        """The member that speaks, the one whose place it takes, or None for a new one."""
        joins = request.member_epoch == JOINING_EPOCH
        if request.instance_id is None:
            if joins and member_id not in self.members:
                return None
            member = self.member(member_id)
        else:
            if joins and request.instance_id not in self._static:
                return None
            member = self.static_member(request.instance_id)
            if joins:
                self._check_released(member, member_id, request.instance_id)
                return member
            check_instance(member, member_id, request.instance_id)
        _check_epoch(member.current, request)
        return member

    def _check_released(self, member: ConsumerMember, member_id: str, instance_id: str) -> None:
        if member.metadata.classic is None and member.current.epoch != STATIC_LEAVING_EPOCH:
            raise GroupRefusedError(
                GroupError.UNRELEASED_INSTANCE_ID,
                f"Static member {member_id} with instance id {instance_id} cannot join the group because the "
                f"instance id is owned by {member.member_id} member.",
            )

    def replace(self, gone: ConsumerMember, member_id: str) -> None:
        """A static member has restarted: it takes its old place, with all that it had."""
        target = self.target.get(gone.member_id, NOTHING)
        current = gone.current._replace(epoch=JOINING_EPOCH, previous_epoch=JOINING_EPOCH)
        metadata = gone.metadata
        self._drop(gone.member_id)
        self._change(Kind.MEMBER, member_id, metadata)
        self._change(Kind.TARGET, member_id, target)
        self._change(Kind.CURRENT, member_id, current)

    # --- what everybody shall have ------------------------------------------------------------------------------------

    def update(self, member_id: str, metadata: MemberMetadata, topics: Topics) -> None:
        """Take in what a member says of itself and what has become of the topics; decide anew if that matters."""
        known = self.members.get(member_id)
        before = known.subscription if known is not None else None
        if known is None or metadata != known.metadata:
            self._change(Kind.MEMBER, member_id, metadata)
        has_changed = before != self.members[member_id].subscription
        if has_changed or self._seen_revision != topics.revision:
            self._resolve(topics)
            topics_hash = topics.hash_of(self.subscribed_topics())
            if has_changed or topics_hash != self._topics_hash:
                self._bump(topics_hash)
        if self.epoch > self.target_epoch:
            self._assign(topics)

    def _resolve(self, topics: Topics) -> None:
        """Find the topics of every regular expression; of topics that were known before, only whether they remain."""
        wanted = {regex for _, regex in self._subscriptions if regex is not None}
        for regex in self._regexes.keys() - wanted:
            self._change(Kind.REGEX, regex, None)
        came = topics.names - self._seen_names if self._seen_revision != _NO_TOPICS_YET else topics.names
        for regex in wanted:
            known = self._regexes.get(regex)
            if known is None or self._seen_revision == _NO_TOPICS_YET:
                found = matching(regex, topics.names)
            elif self._seen_revision == topics.revision:
                continue
            else:
                found = [name for name in known.topics if name in topics.names and name not in came]
                found += matching(regex, came)
            if known is None or known.topics != tuple(sorted(found)):
                self._change(Kind.REGEX, regex, ResolvedRegex(tuple(sorted(found)), topics.revision))
        self._seen_revision, self._seen_names = topics.revision, topics.names

    def _topics_of(self, subscription: tuple[tuple[str, ...], str | None]) -> Sequence[str]:
        names, regex = subscription
        resolved = self._regexes.get(regex) if regex is not None else None
        return names if resolved is None else (*names, *resolved.topics)

    def _bump(self, topics_hash: int) -> None:
        self._change(Kind.EPOCH, "", GroupEpoch(self.epoch + 1, topics_hash))

    def _assign(self, topics: Topics) -> None:
        ids = {subscription: topics.ids(self._topics_of(subscription)) for subscription in self._subscriptions}
        candidates = [
            Candidate(
                member.member_id,
                member.metadata.instance_id,
                ids[member.subscription],
                self.target.get(member.member_id, NOTHING),
            )
            for member in self.members.values()
        ]
        partitions = {topic_id: topics.partitions(topic_id) for found in ids.values() for topic_id in found}
        for member_id, assignment in ASSIGNORS[self.assignor](candidates, partitions).items():
            if assignment != self.target.get(member_id):
                self._change(Kind.TARGET, member_id, assignment)
        self._change(Kind.TARGET_EPOCH, "", self.epoch)

    def reconcile(self, member: ConsumerMember, owned: Assignment | None, now_ms: int) -> None:
        """The member's next step towards its target."""
        target = self.target.get(member.member_id, NOTHING)
        step = next_step(member.current, self.target_epoch, target, owned, self._is_free)
        if step == member.current:
            return
        self._change(Kind.CURRENT, member.member_id, step)
        if step.state is MemberState.UNREVOKED_PARTITIONS and member.metadata.classic is None:
            member.rebalance_deadline_ms = self.wake_at(now_ms + member.metadata.rebalance_timeout_ms)
        else:
            member.rebalance_deadline_ms = NEVER

    def waits_for_others(self, member: ConsumerMember) -> bool:
        """Whether somebody still has a partition that the member shall have."""
        lacking = difference(self.target.get(member.member_id, NOTHING), member.current.assigned)
        return any(
            not self._is_free(topic_id, partition)
            for topic_id, partitions in lacking.items()
            for partition in partitions
        )

    def _is_free(self, topic_id: UUID, partition: int) -> bool:
        return partition not in self._owners.get(topic_id, {})

    # --- members that go ----------------------------------------------------------------------------------------------

    def leave(self, request: HeartbeatRequest, topics: Topics, now_ms: int) -> HeartbeatResult:
        """A member goes, or, a static one, goes and keeps its place until its session ends.

        Raises:
            GroupRefusedError: it is no member.
        """
        if request.instance_id is None:
            member = self.member(request.member_id)
        else:
            member = self.static_member(request.instance_id)
            check_instance(member, request.member_id, request.instance_id)
        if request.member_epoch == STATIC_LEAVING_EPOCH:
            gone = member.current._replace(epoch=STATIC_LEAVING_EPOCH, revoking=NOTHING)
            if gone != member.current:
                self._change(Kind.CURRENT, member.member_id, gone)
            member.rebalance_deadline_ms = NEVER
        else:
            self.remove([member.member_id], topics, now_ms)
        return HeartbeatResult(GroupError.NONE, member_id=request.member_id, member_epoch=request.member_epoch)

    def remove(self, member_ids: Sequence[str], topics: Topics, now_ms: int) -> None:
        """Forget members, and that they had anything."""
        for member_id in member_ids:
            self._drop(member_id)
        self._resolve(topics)
        self._bump(topics.hash_of(self.subscribed_topics()))
        if not self.members:
            self.rest(now_ms)

    def rest(self, now_ms: int) -> None:
        """Nobody is here: whether the group is still of use is to be looked at when it has been so for a while."""
        self._retention_deadline_ms = self.wake_at(now_ms + EMPTY_GROUP_RETENTION_MS)

    def is_expired(self, now_ms: int) -> bool:
        """Whether nobody has been here for so long that the group can go."""
        return not self.members and self._retention_deadline_ms <= now_ms

    def _drop(self, member_id: str) -> None:
        for kind in (Kind.CURRENT, Kind.TARGET, Kind.MEMBER):
            self._change(kind, member_id, None)

    def expire(self, topics: Topics, now_ms: int) -> None:
        """Forget members of whom nothing was heard for too long, or who do not let go of what they have to."""
        late = [member.member_id for member in self.members.values() if member.deadline_ms <= now_ms]
        if late:
            self.remove(late, topics, now_ms)
        deadlines = [member.deadline_ms for member in self.members.values()]
        self.wake_ms = min(deadlines, default=self._retention_deadline_ms)

    def delete(self) -> None:
        """Take back everything that is stored of the group."""
        for member_id in list(self.members):
            self._drop(member_id)
        for regex in list(self._regexes):
            self._change(Kind.REGEX, regex, None)
        self._change(Kind.TARGET_EPOCH, "", None)
        self._change(Kind.EPOCH, "", None)

    # --- changes ------------------------------------------------------------------------------------------------------

    def _change(self, kind: Kind, name: str, value: Value | None) -> None:
        change = Change(kind, self.group_id, name, value)
        self.apply(change)
        self.last_change = self._changes.add(change)

    def put_member(self, member_id: str, metadata: MemberMetadata) -> None:
        self._change(Kind.MEMBER, member_id, metadata)

    def put_epoch(self, epoch: int, topics: Topics) -> None:
        """A group that has been another one until now goes on from this epoch, and has its target."""
        self._resolve(topics)
        self._change(Kind.EPOCH, "", GroupEpoch(epoch, topics.hash_of(self.subscribed_topics())))
        self._change(Kind.TARGET_EPOCH, "", epoch)

    def put_assignment(self, member_id: str, epoch: int, assignment: Assignment) -> None:
        """A member has, and shall have, this."""
        self._change(Kind.TARGET, member_id, assignment)
        self._change(Kind.CURRENT, member_id, CurrentAssignment(epoch, epoch, MemberState.STABLE, assignment))

    def apply(self, change: Change) -> None:
        """Be what a change makes of the group; also what it says when it is read back."""
        name, value = change.name, change.value
        match change.kind:
            case Kind.EPOCH:
                assert value is None or isinstance(value, GroupEpoch)
                self.epoch, self._topics_hash = value or GroupEpoch(0)
            case Kind.TARGET_EPOCH:
                assert value is None or isinstance(value, int)
                self.target_epoch = value or 0
            case Kind.TARGET:
                if value is None:
                    self.target.pop(name, None)
                else:
                    assert not isinstance(value, int | tuple)
                    self.target[name] = value
            case Kind.REGEX:
                if value is None:
                    self._regexes.pop(name, None)
                else:
                    assert isinstance(value, ResolvedRegex)
                    self._regexes[name] = value
            case Kind.MEMBER:
                assert value is None or isinstance(value, MemberMetadata)
                self._set_metadata(name, value)
            case Kind.CURRENT:
                assert value is None or isinstance(value, CurrentAssignment)
                self._set_current(name, value or CurrentAssignment())

    def _set_metadata(self, member_id: str, metadata: MemberMetadata | None) -> None:
        member = self.members.get(member_id)
        if member is not None:
            self._count(member, -1)
            instance_id = member.metadata.instance_id
            if instance_id is not None and self._static.get(instance_id) == member_id:
                del self._static[instance_id]
        if metadata is None:
            self._set_current(member_id, CurrentAssignment())
            self.members.pop(member_id, None)
            return
        if member is None:
            member = self.members[member_id] = ConsumerMember(member_id)
        member.metadata = metadata
        if metadata.instance_id is not None:
            self._static[metadata.instance_id] = member_id
        self._count(member, 1)

    def _count(self, member: ConsumerMember, one: int) -> None:
        self.size_bytes += one * size_of(member.metadata)
        self._subscriptions[member.subscription] += one
        if not self._subscriptions[member.subscription]:
            del self._subscriptions[member.subscription]
        if member.metadata.assignor is not None:
            self._assignors[member.metadata.assignor] += one
            if not self._assignors[member.metadata.assignor]:
                del self._assignors[member.metadata.assignor]

    def _set_current(self, member_id: str, current: CurrentAssignment) -> None:
        member = self.members.get(member_id)
        if member is None:
            if current == CurrentAssignment():
                return
            member = self.members[member_id] = ConsumerMember(member_id)
            self._count(member, 1)
        for assignment in (member.current.assigned, member.current.revoking):
            for topic_id, partitions in assignment.items():
                owners = self._owners.get(topic_id, {})
                for partition in partitions:
                    if owners.get(partition) == member_id:
                        del owners[partition]
                if not owners:
                    self._owners.pop(topic_id, None)
        for assignment in (current.assigned, current.revoking):
            for topic_id, partitions in assignment.items():
                self._owners.setdefault(topic_id, {}).update(dict.fromkeys(partitions, member_id))
        member.current = current

    def start(self, now_ms: int) -> None:
        """A group that was read back is in use from now on: its members have their times from now on."""
        for member_id in [name for name, member in self.members.items() if member.metadata is _NO_METADATA]:
            self._set_metadata(member_id, None)  # the log has lost what it wants
        for member in self.members.values():
            classic = member.metadata.classic
            session_ms = self.config.consumer_session_timeout_ms if classic is None else classic.session_timeout_ms
            member.session_deadline_ms = self.wake_at(now_ms + session_ms)
            if classic is None and member.current.state is MemberState.UNREVOKED_PARTITIONS:
                member.rebalance_deadline_ms = self.wake_at(now_ms + member.metadata.rebalance_timeout_ms)
        if not self.members:
            self.rest(now_ms)

    def wake_at(self, deadline_ms: int) -> int:
        self.wake_ms = min(self.wake_ms, deadline_ms)
        return deadline_ms


def check_instance(member: ConsumerMember, member_id: str, instance_id: str) -> None:
    """
    Raises:
        GroupRefusedError: FENCED_INSTANCE_ID, another one has this static member's place.
    """
    if member.member_id != member_id:
        raise GroupRefusedError(
            GroupError.FENCED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} was fenced by member {member.member_id}.",
        )


def _check_epoch(current: CurrentAssignment, request: HeartbeatRequest) -> None:
    epoch = request.member_epoch
    if epoch == current.epoch:
        return
    is_answer_lost = epoch == current.previous_epoch and request.owned is not None
    if epoch > current.epoch or not (is_answer_lost and is_within(request.owned or NOTHING, current.assigned)):
        how = "greater" if epoch > current.epoch else "smaller"
        raise GroupRefusedError(
            GroupError.FENCED_MEMBER_EPOCH,
            f"The consumer group member has a {how} member epoch ({epoch}) than the one known by the group "
            f"coordinator ({current.epoch}). The member must abandon all its partitions and rejoin.",
        )


def _updated(before: MemberMetadata, request: HeartbeatRequest) -> MemberMetadata:
    """What is known of a member now; what it does not say is as before."""
    return MemberMetadata(
        request.instance_id if request.instance_id is not None else before.instance_id,
        request.rack_id if request.rack_id is not None else before.rack_id,
        request.client_id,
        request.client_host,
        before.topic_names if request.topic_names is None else tuple(sorted(set(request.topic_names))),
        request.topic_regex if request.topic_regex is not None else before.topic_regex,
        request.rebalance_timeout_ms if request.rebalance_timeout_ms >= 0 else before.rebalance_timeout_ms,
        request.assignor if request.assignor is not None else before.assignor,
    )


def size_of(metadata: MemberMetadata) -> int:
    """What a member takes in memory, about, without its assignment."""
    protocols = metadata.classic.protocols if metadata.classic is not None else ()
    return (
        MEMBER_OVERHEAD_BYTES
        + sum(map(len, metadata.topic_names))
        + len(metadata.topic_regex or "")
        + sum(len(name) + len(data) for name, data in protocols)
    )
