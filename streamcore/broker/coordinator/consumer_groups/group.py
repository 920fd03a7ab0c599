"""One consumer group as a state machine: heartbeats, topics and times in, answers and changes out."""

from collections.abc import Sequence

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING, Assignment, is_within
from streamcore.broker.coordinator.consumer_groups.assignors import ASSIGNORS, Candidate
from streamcore.broker.coordinator.consumer_groups.changes import Kind
from streamcore.broker.coordinator.consumer_groups.messages import (
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
from streamcore.broker.coordinator.consumer_groups.stored_group import (
    NO_METADATA,
    NO_TOPICS_YET,
    ConsumerMember,
    StoredGroup,
    check_instance,
)
from streamcore.broker.coordinator.consumer_groups.topics import Topics, matching
from streamcore.broker.coordinator.deadlines import NEVER
from streamcore.broker.coordinator.group_config import (
    EMPTY_GROUP_RETENTION_MS,
)
from streamcore.broker.coordinator.group_messages import GroupError


class ConsumerGroup(StoredGroup):
    """One group, as its members speak to it."""

    # --- members that are alive ---------------------------------------------------------------------------------------

    def heartbeat(self, request: HeartbeatRequest, member_id: str, topics: Topics, now_ms: int) -> HeartbeatResult:
        """A member joins, is alive, has let go of partitions or got them; its next step.

        Raises:
            GroupRefusedError: nothing has changed.
        """
        self.check_room(member_id)
        known = self._known(request, member_id)
        metadata = _updated(known.metadata if known is not None else NO_METADATA, request)
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
        came = topics.names - self._seen_names if self._seen_revision != NO_TOPICS_YET else topics.names
        for regex in wanted:
            known = self._regexes.get(regex)
            if known is None or self._seen_revision == NO_TOPICS_YET:
                found = matching(regex, topics.names)
            elif self._seen_revision == topics.revision:
                continue
            else:
                found = [name for name in known.topics if name in topics.names and name not in came]
                found += matching(regex, came)
            if known is None or known.topics != tuple(sorted(found)):
                self._change(Kind.REGEX, regex, ResolvedRegex(tuple(sorted(found)), topics.revision))
        self._seen_revision, self._seen_names = topics.revision, topics.names

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

    # --- other lives --------------------------------------------------------------------------------------------------

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

    def start(self, now_ms: int) -> None:
        """A group that was read back is in use from now on: its members have their times from now on."""
        for member_id in [name for name, member in self.members.items() if member.metadata is NO_METADATA]:
            # The log has lost what it wants.
            self._set_metadata(member_id, None)
            self.target.pop(member_id, None)
        for member in self.members.values():
            classic = member.metadata.classic
            session_ms = self.config.consumer_session_timeout_ms if classic is None else classic.session_timeout_ms
            member.session_deadline_ms = self.wake_at(now_ms + session_ms)
            if classic is None and member.current.state is MemberState.UNREVOKED_PARTITIONS:
                member.rebalance_deadline_ms = self.wake_at(now_ms + member.metadata.rebalance_timeout_ms)
        if not self.members:
            self.rest(now_ms)


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
