"""A cluster that is made up: three nodes, one of them down, a thousand partitions, ten thousand connections."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from streamcore.clock import Clock
from streamcore.errors import BrokerUnreachableError
from streamcore.protocol import messages
from streamcore.protocol.consumer_protocol import Subscription, encode_assignment, encode_subscription
from streamcore.protocol.messages import Api
from streamcore.records.codec import decode, encode
from streamcore.transport.administration import Administration, ConnectionInfo
from streamcore.transport.base import Committed, Fetched, PartitionInfo, Records
from streamcore.types import TP

PARTITIONS = {"alarms": 8, "events": 1000, "server-metrics": 8}
CONNECTIONS = 10_000
MEMBERS = 40
LONG = "a-member-id-that-goes-on-and-on-" * 3
HOSTILE_GROUP = '<img src=x onerror="window.hit=1">/ä b'
GROUPS = ["billing", HOSTILE_GROUP, "idle", *(f"team-{number:02}" for number in range(30))]
NEWER_GROUP = "team-07"  # follows KIP-848; its second member has not let go of what the first one shall have
END = 1000
DOWN = 3  # the node that does not answer


class FakeAsker:
    def __init__(self, clock: Clock, *, tells: bool = True) -> None:
        self._clock = clock
        self.tells = tells
        self.asked = 0
        self.problem: BrokerUnreachableError | None = None

    def software(self) -> str | None:
        return "streamcore 0.1.0" if self.tells else None

    def connections(self) -> list[ConnectionInfo] | None:
        if not self.tells:
            return None
        now_ms = self._clock.now_ms()
        return [
            ConnectionInfo(
                client_id=f"client-{n % 500}",
                software="librdkafka 2.6.1",
                host=f"10.0.{n // 250}.{n % 250}",
                port=40_000 + n,
                since_ms=now_ms - n * 1000,
                requests=n,
                bytes_in=10 * n,
                bytes_out=n,
                in_flight=n % 3,
            )
            for n in range(CONNECTIONS)
        ]

    async def ask(self, api: Api, request: Any, *, node_id: int | None = None, most: int | None = None) -> Any:
        self.asked += 1
        if self.problem is not None:
            raise self.problem
        if node_id == DOWN:
            raise BrokerUnreachableError("no broker at 10.9.9.9:9092: it does not answer. Is it running?")
        return getattr(self, api.name)(getattr(messages, api.name), request, node_id)

    def Metadata(self, api: Any, request: Any, node_id: int | None) -> Any:
        return api.Response(
            cluster_id="a-cluster",
            controller_id=1,
            brokers=[
                api.MetadataResponseBroker(node_id=n, host=f"10.0.0.{n}", port=9092, rack="rack-a" if n == 1 else None)
                for n in (1, 2, DOWN)
            ],
            topics=[
                api.MetadataResponseTopic(
                    name=topic,
                    is_internal=False,
                    partitions=[
                        api.MetadataResponsePartition(
                            partition_index=p, leader_id=1 + p % 2, replica_nodes=[1, 2, DOWN], isr_nodes=[1, 2]
                        )
                        for p in range(count)
                    ],
                )
                for topic, count in PARTITIONS.items()
            ],
        )

    def ApiVersions(self, api: Any, request: Any, node_id: int | None) -> Any:
        feature = api.FinalizedFeatureKey(name="metadata.version", max_version_level=27, min_version_level=27)
        return api.Response(api_keys=[], finalized_features=[feature])

    def DescribeLogDirs(self, api: Any, request: Any, node_id: int | None) -> Any:
        partitions = [api.DescribeLogDirsPartition(partition_index=p, partition_size=143_000) for p in range(500)]
        result = api.DescribeLogDirsResult(
            log_dir="/data",
            topics=[api.DescribeLogDirsTopic(name="events", partitions=partitions)],
            total_bytes=10**12,
            usable_bytes=10**11,
        )
        return api.Response(results=[result])

    def ListGroups(self, api: Any, request: Any, node_id: int | None) -> Any:
        groups = [
            api.ListedGroup(
                group_id=name,
                protocol_type="consumer",
                group_state="Empty" if name == "idle" else "Stable",
                group_type="consumer" if name == NEWER_GROUP else "classic",
            )
            for index, name in enumerate(GROUPS)
            if 1 + index % 2 == node_id
        ]
        return api.Response(groups=groups)

    def DescribeGroups(self, api: Any, request: Any, node_id: int | None) -> Any:
        return api.Response(
            groups=[
                api.DescribedGroup(
                    group_id=name,
                    group_state="Empty" if name == "idle" else "Stable",
                    protocol_type="consumer",
                    protocol_data="cooperative-sticky",
                    members=[] if name == "idle" else [self._member(api, n) for n in range(MEMBERS)],
                )
                for name in request.groups
            ]
        )

    def ConsumerGroupDescribe(self, api: Any, request: Any, node_id: int | None) -> Any:
        assert request.group_ids == [NEWER_GROUP]
        shares = [([0, 1], [0, 1, 2]), ([2, 3], [3])]
        members = [
            api.Member(
                member_id=f"{LONG}{number}",
                instance_id=None,
                member_epoch=5 - number,
                client_id=f"reader-{number}",
                client_host=f"/10.1.0.{number}",
                subscribed_topic_names=["events"],
                subscribed_topic_regex="ev.*" if number == 0 else None,
                assignment=self._assignment(api, assigned),
                target_assignment=self._assignment(api, target),
            )
            for number, (assigned, target) in enumerate(shares)
        ]
        group = api.DescribedGroup(
            group_id=NEWER_GROUP,
            group_state="Reconciling",
            group_epoch=5,
            assignment_epoch=5,
            assignor_name="uniform",
            members=members,
        )
        return api.Response(groups=[group])

    def _assignment(self, api: Any, partitions: list[int]) -> Any:
        topic = api.TopicPartitions(topic_id=UUID(int=1), topic_name="events", partitions=partitions)
        return api.Assignment(topic_partitions=[topic])

    def _member(self, api: Any, number: int) -> Any:
        share = [TP("events", p) for p in range(number * 25, number * 25 + 25)]
        return api.DescribedGroupMember(
            member_id=f"{LONG}{number}",
            group_instance_id=f"instance-{number}" if number == 0 else None,
            client_id=HOSTILE_GROUP if number == 1 else f"reader-{number:02}",
            client_host=f"/10.1.0.{number}",
            member_metadata=encode_subscription(Subscription(("events",))),
            member_assignment=encode_assignment(share),
        )


class FakeTransport:
    """The little that the cluster's page needs of one."""

    url = "kafka://10.0.0.1:9092"

    def __init__(self, clock: Clock, *, empty: bool = False, private: bool = False, tells: bool = True) -> None:
        self._empty = empty
        self._private = private
        self.asker = FakeAsker(clock, tells=tells)
        self._oldest_ms = clock.now_ms() - 3 * 3_600_000

    def administration(self) -> Administration | None:
        return None if self._private or self._empty else Administration(self.asker)

    async def describe_partitions(self) -> list[PartitionInfo]:
        if self._empty:
            return []
        return [
            PartitionInfo(TP(topic, p), 0, END, 143_000, "no node leads this partition" if p == 999 else None)
            for topic, count in PARTITIONS.items()
            for p in range(count)
        ]

    async def groups(self) -> list[str]:
        return [] if self._empty else GROUPS

    async def committed(self, group: str, tps: Iterable[TP] | None = None) -> dict[TP, Committed]:
        if group == "idle":
            return {TP("alarms", p): Committed(END) for p in range(8)}
        return {TP("events", p): Committed(END - p % 7) for p in range(900)}

    async def fetch(
        self, positions: Mapping[TP, int], *, max_bytes: int = 1 << 20, max_wait_ms: int = 500
    ) -> list[Fetched]:
        batch = encode([(None, b"v", self._oldest_ms, ())])
        return [Fetched(tp, Records(decode(batch)), offset + 1, END, 0, None) for tp, offset in positions.items()]
