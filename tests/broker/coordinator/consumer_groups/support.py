"""Groups of both protocols driven by hand: topics and a clock that are told what they are, requests filled in."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING, Assignment
from streamcore.broker.coordinator.consumer_groups.changes import Change
from streamcore.broker.coordinator.consumer_groups.messages import HeartbeatRequest, HeartbeatResult
from streamcore.broker.coordinator.consumer_groups.mixed_group import MixedGroup
from streamcore.broker.coordinator.consumer_groups.records import decode_change, encode_change
from streamcore.broker.coordinator.consumer_groups.topics import Topic, Topics
from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError, JoinRequest, JoinResult, SyncRequest, SyncResult
from streamcore.broker.coordinator.registry import GroupRegistry
from streamcore.protocol.consumer_protocol import Subscription, decode_assignment, encode_subscription
from streamcore.types import TP

Partition = tuple[str, int]
SESSION_MS, REBALANCE_MS = 45_000, 60_000
CONFIG = GroupConfig(group_initial_rebalance_delay_ms=0)


class DrivenRegistry:
    """A registry whose log takes everything, and that can be read back from it."""

    def __init__(self, config: GroupConfig = CONFIG, *, offset_groups: Iterable[str] = ()) -> None:
        self.config = config
        self.now_ms = 1000
        self.topics = Topics(0, {})
        self.log: list[tuple[bytes, bytes | None]] = []
        self._offset_groups = list(offset_groups)
        self._ids = 0
        self._tickets = 0
        self.registry = self._new_registry()

    def _new_registry(self) -> GroupRegistry:
        return GroupRegistry(
            self.config, lambda: self.topics, offset_groups=lambda: self._offset_groups, new_id=self._new_id
        )

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    # --- topics -------------------------------------------------------------------------------------------------------

    def set_topic(self, name: str, partitions: int) -> None:
        """A new topic, more partitions, or, with none, no such topic any more."""
        topics = dict(self.topics.by_name)
        if partitions:
            known = topics.get(name)
            revision = self.topics.revision + 1
            topics[name] = Topic(known.topic_id if known is not None else UUID(int=revision), partitions)
        else:
            topics.pop(name, None)
        self.topics = Topics(self.topics.revision + 1, topics)

    def named(self, assignment: Assignment | None) -> set[Partition]:
        return {
            (self.topics.name_of.get(topic_id, str(topic_id)), partition)
            for topic_id, partitions in (assignment or {}).items()
            for partition in partitions
        }

    # --- requests -----------------------------------------------------------------------------------------------------

    def heartbeat(
        self,
        member_id: str,
        epoch: int,
        *,
        group_id: str = "g",
        topics: Iterable[str] | None = None,
        regex: str | None = None,
        instance: str | None = None,
        owned: Assignment | None = None,
        rebalance_ms: int = -1,
        assignor: str | None = None,
        makes_its_id: bool = True,
        rack: str | None = None,
    ) -> HeartbeatResult:
        request = HeartbeatRequest(
            group_id=group_id,
            member_id=member_id,
            member_epoch=epoch,
            client_id="client",
            client_host="/127.0.0.1",
            makes_its_id=makes_its_id,
            instance_id=instance,
            rack_id=rack,
            rebalance_timeout_ms=rebalance_ms,
            topic_names=None if topics is None else tuple(topics),
            topic_regex=regex,
            assignor=assignor,
            owned=owned,
        )
        result = self.registry.consumer_heartbeat(request, self.now_ms)
        self.store()
        return result

    def join(self, member_id: str, topics: Iterable[str] | None = ("t",), **options: object) -> HeartbeatResult:
        settings = {"owned": NOTHING, "rebalance_ms": REBALANCE_MS, **options}
        return self.heartbeat(member_id, 0, topics=topics, **settings)  # type: ignore[arg-type]

    def settle(self, *member_ids: str, group_id: str = "g", rounds: int = 10) -> None:
        """These members beat and do as they are told, until nothing changes any more."""
        for _ in range(rounds):
            for member_id in member_ids:
                member = self.group(group_id).members[member_id]
                self.heartbeat(member_id, member.current.epoch, group_id=group_id, owned=member.current.assigned)

    def classic_join(
        self,
        member_id: str = "",
        topics: Iterable[str] = ("t",),
        *,
        owned: Iterable[Partition] = (),
        generation: int = -1,
        group_id: str = "g",
        instance: str | None = None,
        needs_id: bool = False,
        protocol_type: str = "consumer",
        protocols: tuple[str, ...] = ("range",),
        metadata: bytes | None = None,
    ) -> JoinResult | None:
        """The answer; None while the member waits for others."""
        tps = tuple(TP(*partition) for partition in sorted(owned))
        said = metadata if metadata is not None else encode_subscription(Subscription(tuple(topics), tps, generation))
        self._tickets += 1
        request = JoinRequest(
            group_id=group_id,
            member_id=member_id,
            group_instance_id=instance,
            client_id="classic",
            client_host="/127.0.0.1",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=REBALANCE_MS,
            protocol_type=protocol_type,
            protocols=tuple((name, said) for name in protocols),
            requires_known_member_id=needs_id,
        )
        self.registry.join(self._tickets, request, self.now_ms)
        result = self.store().get(self._tickets)
        assert not isinstance(result, SyncResult)
        return result

    def classic_sync(
        self, member_id: str, generation: int, assignments: Mapping[str, bytes] | None = None, group_id: str = "g"
    ) -> SyncResult | None:
        self._tickets += 1
        request = SyncRequest(
            group_id=group_id,
            generation_id=generation,
            member_id=member_id,
            group_instance_id=None,
            protocol_type="consumer",
            protocol_name="range",
            assignments=dict(assignments or {}),
        )
        self.registry.sync(self._tickets, request, self.now_ms)
        result = self.store().get(self._tickets)
        assert not isinstance(result, JoinResult)
        return result

    def synced(self, member_id: str, generation: int) -> set[Partition]:
        result = self.classic_sync(member_id, generation)
        assert result is not None
        assert result.error_code == GroupError.NONE
        return {(tp.topic, tp.partition) for tp in decode_assignment(result.assignment)}

    def classic_heartbeat(self, member_id: str, generation: int, group_id: str = "g") -> GroupError:
        error = self.registry.heartbeat(group_id, generation, member_id, None, self.now_ms)
        self.store()
        return error

    # --- the group ----------------------------------------------------------------------------------------------------

    def group(self, group_id: str = "g") -> MixedGroup:
        found = self.registry.consumer.get(group_id)
        assert found is not None
        return found

    def assigned(self, member_id: str) -> set[Partition]:
        return self.named(self.group().members[member_id].current.assigned)

    def target(self, member_id: str) -> set[Partition]:
        return self.named(self.group().target.get(member_id))

    # --- the log ------------------------------------------------------------------------------------------------------

    def store(self) -> dict[int, JoinResult | SyncResult]:
        """Everything that is to be stored is; the answers that have come up."""
        self.take(self.registry.changes.take())
        for write in self.registry.take_writes():
            self.registry.written(write, GroupError.NONE, self.now_ms)
        return dict(self.registry.take_replies())

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            key, value, _, _ = encode_change(change, self.now_ms)
            assert key is not None
            self.log.append((key, value))

    def restart(self) -> None:
        """The registry is made again from its records."""
        self.registry = self._new_registry()
        for key, value in self.log:
            change = decode_change(key, value)
            assert change is not None
            self.registry.restore_change(change)
        self.registry.start(self.now_ms)

    def pass_time(self, milliseconds: int) -> None:
        """Every deadline on the way is met at its time."""
        end_ms = self.now_ms + milliseconds
        while (deadline_ms := self.registry.next_deadline_ms) is not None and deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, deadline_ms)
            self.registry.expire(self.now_ms)
            self.store()
        self.now_ms = end_ms
