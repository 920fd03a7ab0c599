"""A log over the wire: a broker of ours, or Apache Kafka.

The Kafka protocol is this project's own subject, so its own codec speaks it here: batches come from the socket as they
lie on disk and are decoded as they are used, exactly as from the embedded log.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from streamcore import errors
from streamcore.errors import (
    BrokerUnreachableError,
    GroupNotEmptyError,
    OffsetOutOfRangeError,
    StreamcoreError,
    UnknownMemberError,
    UnknownTopicError,
)
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.messages import Api
from streamcore.records.compression import COMPRESSIONS
from streamcore.records.control import Aborted
from streamcore.transport.administration import Administration
from streamcore.transport.base import (
    CLIENT_ID,
    EARLIEST,
    FETCH_MAX_BYTES,
    LATEST,
    Acks,
    Committed,
    Fetched,
    Generation,
    PartitionInfo,
    Records,
    TopicInfo,
)
from streamcore.transport.batches import decode_batches
from streamcore.transport.broker_errors import RETRIABLE, RetriableError, check, error_of
from streamcore.transport.client_settings import ClientSecurity
from streamcore.transport.cluster import Cluster, ClusterAsker
from streamcore.transport.commits import Commits
from streamcore.transport.polls import Polls
from streamcore.transport.wire_producer import WireProducer
from streamcore.types import TP, OutRecord

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Fetch = messages.Fetch
_ListOffsets = messages.ListOffsets
_FETCH_BY_NAME: Final = 12  # later versions name topics by their ids
_LIST_OFFSETS_MOST: Final = 7
_GROUP_MOST: Final = 7  # later versions ask for several groups at once
_TOPIC_RESOURCE: Final = 2
READ_COMMITTED: Final = 1  # what a transaction writes is there once it has been committed, and not before
_SOURCE_TOPIC: Final = 1
_SET, _DELETE = 0, 1
CREATE_TIMEOUT_MS: Final = 30_000
# How long a topic that was just made may be unknown to the node that is asked: a cluster tells its nodes one by one.
SETTLE_S: Final = 10.0
_LIST_BY_TIME: Final = {EARLIEST: -2, LATEST: -1}


class KafkaTransport:
    """Nothing is opened before `start`."""

    def __init__(
        self,
        addresses: str | Callable[[], list[tuple[str, int]]],
        *,
        url: str = "",
        client_id: str = CLIENT_ID,
        security: ClientSecurity | None = None,
    ) -> None:
        """
        Args:
            addresses: `host:port,…`, or what is asked for them whenever no known node answers.
        Raises:
            UsageError: the addresses are none, or the security leads to files that are none.
        """
        self.url = url or f"kafka://{addresses}"
        security = security or ClientSecurity()
        self._cluster = (
            Cluster.parse(addresses, client_id, security)
            if isinstance(addresses, str)
            else Cluster(addresses, client_id, security)
        )
        self._producer = WireProducer(self._cluster)
        self._commits = Commits(self._commit)
        self._polls = Polls(self._cluster, self._fetch_from)
        self._fetches = 0
        self._is_started = False

    async def start(self) -> None:
        if not self._is_started:
            await self._cluster.refresh()
            self._is_started = True

    async def stop(self) -> None:
        self._is_started = False
        await self._polls.close()
        await self._commits.close()
        await self._cluster.close()

    # --- topics -----------------------------------------------------------------------------------------------------

    async def topics(self) -> dict[str, TopicInfo]:
        await self._cluster.persist(self._cluster.refresh)
        layouts = dict(self._cluster.layouts)
        configs = await self._configs(layouts)
        return {
            name: TopicInfo(name, len(layout.leaders), configs.get(name, {}), layout.is_internal)
            for name, layout in sorted(layouts.items())
        }

    async def _configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """What each topic's settings differ in from the defaults."""
        describe = messages.DescribeConfigs
        resources = [
            describe.DescribeConfigsResource(resource_type=_TOPIC_RESOURCE, resource_name=name, configuration_keys=None)
            for name in names
        ]
        if not resources:
            return {}
        response = await self._cluster.ask_anyone(describe, describe.Request(resources=resources))
        return {
            result.resource_name: {
                entry.name: entry.value for entry in result.configs if entry.config_source == _SOURCE_TOPIC
            }
            for result in response.results
        }

    async def create_topic(self, name: str, *, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        create = messages.CreateTopics
        topic = create.CreatableTopic(
            name=name,
            num_partitions=partitions,
            replication_factor=-1,  # as many replicas as the cluster thinks right
            configs=[create.CreatableTopicConfig(name=key, value=value) for key, value in (config or {}).items()],
        )
        request = create.Request(topics=[topic], timeout_ms=CREATE_TIMEOUT_MS)
        response = await self._ask_controller(create, request, lambda response: response.topics[0])
        check(response.topics[0].error_code, response.topics[0].error_message, name)
        return await self._settled(name, partitions)

    async def delete_topic(self, name: str) -> None:
        delete = messages.DeleteTopics
        request = delete.Request(
            topics=[delete.DeleteTopicState(name=name)], topic_names=[name], timeout_ms=CREATE_TIMEOUT_MS
        )
        response = await self._ask_controller(delete, request, lambda response: response.responses[0])
        self._cluster.forget(name)
        check(response.responses[0].error_code, response.responses[0].error_message, name)

    async def add_partitions(self, name: str, total: int) -> TopicInfo:
        create = messages.CreatePartitions
        request = create.Request(
            topics=[create.CreatePartitionsTopic(name=name, count=total, assignments=None)],
            timeout_ms=CREATE_TIMEOUT_MS,
        )
        response = await self._ask_controller(create, request, lambda response: response.results[0])
        check(response.results[0].error_code, response.results[0].error_message, name)
        return await self._settled(name, total)

    async def alter_config(self, name: str, changes: Mapping[str, str | None]) -> TopicInfo:
        alter = messages.IncrementalAlterConfigs
        entries = [
            alter.AlterableConfig(name=key, value=value, config_operation=_DELETE if value is None else _SET)
            for key, value in changes.items()
        ]
        resource = alter.AlterConfigsResource(resource_type=_TOPIC_RESOURCE, resource_name=name, configs=entries)
        response = await self._ask_controller(
            alter, alter.Request(resources=[resource]), lambda response: response.responses[0]
        )
        check(response.responses[0].error_code, response.responses[0].error_message, name)
        return (await self.topics())[name]

    async def _ask_controller(self, api: Api, request: Any, result_of: Callable[[Any], Any]) -> Any:
        async def once() -> Any:
            response = await (await self._cluster.controller()).ask(api, request)
            code = result_of(response).error_code
            if code in RETRIABLE:
                await self._cluster.refresh(())
                raise RetriableError(code, f"{api.name} was answered {ErrorCode(code).name}")
            return response

        return await self._cluster.persist(once)

    async def _settled(self, name: str, partitions: int) -> TopicInfo:
        """Wait until every partition of a new topic has a leader that knows of it."""

        async def once() -> TopicInfo:
            await self._cluster.refresh([name])
            layout = self._cluster.layouts.get(name)
            if layout is None or len(layout.leaders) < partitions or -1 in layout.leaders:
                raise RetriableError(ErrorCode.LEADER_NOT_AVAILABLE, f"topic {name} has no leaders yet")
            tps = [TP(name, partition) for partition in range(partitions)]
            try:
                await self._list_once(tps, EARLIEST)
            except UnknownTopicError as error:
                raise RetriableError(error.code, str(error)) from error
            return TopicInfo(name, partitions, (await self._configs([name])).get(name, {}), layout.is_internal)

        return await self._cluster.persist(once, for_s=SETTLE_S)

    # --- records ----------------------------------------------------------------------------------------------------

    async def produce(
        self, batches: Mapping[TP, Sequence[OutRecord]], *, acks: Acks = Acks.ALL, compression: str = "none"
    ) -> dict[TP, int | StreamcoreError]:
        if compression not in COMPRESSIONS:
            raise errors.UsageError(f"compression {compression!r} is unknown: it is one of {', '.join(COMPRESSIONS)}")
        return await self._producer.produce(batches, acks=acks, compression=compression)

    async def fetch(
        self, positions: Mapping[TP, int], *, max_bytes: int = 1 << 20, max_wait_ms: int = 500
    ) -> list[Fetched]:
        tps = list(positions)
        if not tps:
            return []
        self._fetches += 1
        turn = self._fetches % len(tps)
        wanted = {tp: positions[tp] for tp in tps[turn:] + tps[:turn]}
        by_node, failures = await self._cluster.locate(wanted)
        if failures:
            return [_failed(tp, wanted[tp], error) for tp, error in failures.items()]
        requests = {node_id: {tp: wanted[tp] for tp in node_tps} for node_id, node_tps in by_node.items()}
        if max_wait_ms > 0:
            return await self._polls.wait(requests, max_bytes, max_wait_ms)
        answers = await asyncio.gather(
            *(self._fetch_from(node_id, share, max_bytes, 0, "") for node_id, share in requests.items())
        )
        return [part for answer in answers for part in answer]

    async def _fetch_from(
        self, node_id: int, positions: Mapping[TP, int], max_bytes: int, max_wait_ms: int, purpose: str
    ) -> list[Fetched]:
        """One request to one node; errors come with their partitions."""
        topics: dict[str, Any] = {}
        for tp, offset in positions.items():
            topic = topics.get(tp.topic)
            if topic is None:
                topic = topics[tp.topic] = _Fetch.FetchTopic(topic=tp.topic)
            topic.partitions.append(
                _Fetch.FetchPartition(partition=tp.partition, fetch_offset=offset, partition_max_bytes=max_bytes)
            )
        request = _Fetch.Request(
            max_wait_ms=max_wait_ms,
            min_bytes=1,
            max_bytes=max(FETCH_MAX_BYTES, max_bytes),
            topics=list(topics.values()),
            session_epoch=-1,
            isolation_level=READ_COMMITTED,
        )
        try:
            connection = await self._cluster.node(node_id, purpose)
            response = await connection.ask(_Fetch, request, most=_FETCH_BY_NAME)
        except StreamcoreError as error:
            for topic in topics:
                self._cluster.forget(topic)
            return [_failed(tp, offset, error) for tp, offset in positions.items()]
        found: list[Fetched] = []
        for topic in response.responses:
            for partition in topic.partitions:
                tp = TP(topic.topic, partition.partition_index)
                fetched = await self._fetched(tp, positions[tp], partition)
                if fetched is not None:
                    found.append(fetched)
        return found

    async def _fetched(self, tp: TP, offset: int, partition: Any) -> Fetched | None:
        code = partition.error_code
        if code == ErrorCode.OFFSET_OUT_OF_RANGE:
            try:
                low = (await self._list_once([tp], EARLIEST))[tp]
                high = (await self._list_once([tp], LATEST))[tp]
            except StreamcoreError as error:
                return _failed(tp, offset, error)
            return _failed(tp, offset, OffsetOutOfRangeError(offset, low, high))
        if code:
            self._cluster.forget(tp.topic)
            return _failed(tp, offset, error_of(code, None, str(tp)))
        # As far as anybody may read: records of a transaction that is open are not there yet.
        high_watermark, log_start_offset = partition.last_stable_offset, max(0, partition.log_start_offset)
        if not partition.records:
            if high_watermark <= offset:
                return None
            return Fetched(tp, Records(), offset, high_watermark, log_start_offset, None)
        aborted = [Aborted(found.first_offset, found.producer_id) for found in partition.aborted_transactions or ()]
        records, next_offset, corrupt = decode_batches(partition.records, offset, aborted)
        if corrupt is not None and next_offset == offset:
            return _failed(tp, offset, corrupt)
        return Fetched(tp, records, next_offset, high_watermark, log_start_offset, None)

    async def list_offsets(self, tps: Iterable[TP], timestamp_ms: int) -> dict[TP, int]:
        tps = list(tps)
        return await self._cluster.persist(lambda: self._list_once(tps, timestamp_ms))

    async def _list_once(self, tps: Sequence[TP], timestamp_ms: int) -> dict[TP, int]:
        found: dict[TP, int] = {}
        none: list[TP] = []
        for node_id, node_tps in (await self._cluster.leaders(tps)).items():
            topics: dict[str, Any] = {}
            for tp in node_tps:
                topic = topics.setdefault(tp.topic, _ListOffsets.ListOffsetsTopic(name=tp.topic))
                topic.partitions.append(
                    _ListOffsets.ListOffsetsPartition(
                        partition_index=tp.partition,
                        timestamp=_LIST_BY_TIME.get(timestamp_ms, timestamp_ms),
                    )
                )
            request = _ListOffsets.Request(replica_id=-1, isolation_level=READ_COMMITTED, topics=list(topics.values()))
            response = await (await self._cluster.node(node_id)).ask(_ListOffsets, request, most=_LIST_OFFSETS_MOST)
            for topic in response.topics:
                for partition in topic.partitions:
                    tp = TP(topic.name, partition.partition_index)
                    if partition.error_code:
                        self._cluster.forget(topic.name)
                        raise error_of(partition.error_code, None, str(tp))
                    found[tp] = partition.offset
                    if partition.offset < 0:
                        none.append(tp)
        if none and timestamp_ms != LATEST:
            # No record as late as that: the next one will be.
            found.update(await self._list_once(none, LATEST))
        return found

    async def describe_partitions(self) -> list[PartitionInfo]:
        await self._cluster.persist(self._cluster.refresh)
        tps = [
            TP(name, partition)
            for name, layout in sorted(self._cluster.layouts.items())
            for partition, leader in enumerate(layout.leaders)
            if leader in self._cluster.nodes
        ]
        starts, ends = await self.list_offsets(tps, EARLIEST), await self.list_offsets(tps, LATEST)
        sizes = await self._sizes()
        known = {tp: PartitionInfo(tp, starts[tp], ends[tp], sizes.get(tp, 0), None) for tp in tps}
        return [
            known.get(TP(name, partition))
            or PartitionInfo(TP(name, partition), -1, -1, 0, "no node leads this partition")
            for name, layout in sorted(self._cluster.layouts.items())
            for partition in range(len(layout.leaders))
        ]

    async def _sizes(self) -> dict[TP, int]:
        """Bytes on disk, as far as the nodes tell: of leaders, since followers have the same."""
        describe = messages.DescribeLogDirs
        sizes: dict[TP, int] = {}
        for node_id in list(self._cluster.nodes):
            try:
                response = await (await self._cluster.node(node_id)).ask(describe, describe.Request(topics=None))
            except StreamcoreError as error:
                logger.debug("node %d does not tell its sizes: %s", node_id, error)
                continue
            for result in response.results:
                for topic in result.topics:
                    for partition in topic.partitions:
                        tp = TP(topic.name, partition.partition_index)
                        if self._cluster.leader(tp) == node_id:
                            sizes[tp] = partition.partition_size
        return sizes

    async def delete_records(self, tp: TP, before_offset: int) -> int:
        delete = messages.DeleteRecords
        partition = delete.DeleteRecordsPartition(partition_index=tp.partition, offset=before_offset)
        request = delete.Request(
            topics=[delete.DeleteRecordsTopic(name=tp.topic, partitions=[partition])], timeout_ms=CREATE_TIMEOUT_MS
        )

        async def once() -> int:
            (node_id,) = await self._cluster.leaders([tp])
            response = await (await self._cluster.node(node_id)).ask(delete, request)
            result = response.topics[0].partitions[0]
            if result.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
                low = (await self._list_once([tp], EARLIEST))[tp]
                raise OffsetOutOfRangeError(before_offset, low, (await self._list_once([tp], LATEST))[tp])
            if result.error_code:
                self._cluster.forget(tp.topic)
                raise error_of(result.error_code, None, str(tp))
            return int(result.low_watermark)

        return await self._cluster.persist(once)

    # --- committed offsets ------------------------------------------------------------------------------------------

    async def committed(self, group: str, tps: Iterable[TP] | None = None) -> dict[TP, Committed]:
        fetch = messages.OffsetFetch
        topics: list[Any] | None = None
        if tps is not None:
            wanted: dict[str, list[int]] = {}
            for tp in tps:
                wanted.setdefault(tp.topic, []).append(tp.partition)
            if not wanted:
                return {}
            topics = [fetch.OffsetFetchRequestTopic(name=name, partition_indexes=p) for name, p in wanted.items()]
        request = fetch.Request(group_id=group, topics=topics)

        async def once() -> dict[TP, Committed]:
            response = await self._ask_coordinator(group, fetch, request, lambda response: [response.error_code])
            found: dict[TP, Committed] = {}
            for topic in response.topics:
                for partition in topic.partitions:
                    if partition.error_code:
                        raise error_of(partition.error_code, None, f"{topic.name}-{partition.partition_index}")
                    if partition.committed_offset >= 0:
                        tp = TP(topic.name, partition.partition_index)
                        found[tp] = Committed(partition.committed_offset, partition.metadata or "")
            return found

        return await self._cluster.persist(once)

    async def commit(self, group: str, offsets: Mapping[TP, Committed], member: Generation | None = None) -> None:
        await self._commits.commit(group, offsets, member)

    async def _commit(self, group: str, offsets: Mapping[TP, Committed], member: Generation | None) -> None:
        commit = messages.OffsetCommit
        topics: dict[str, Any] = {}
        for tp, committed in offsets.items():
            topic = topics.setdefault(tp.topic, commit.OffsetCommitRequestTopic(name=tp.topic))
            topic.partitions.append(
                commit.OffsetCommitRequestPartition(
                    partition_index=tp.partition,
                    committed_offset=committed.offset,
                    committed_metadata=committed.metadata,
                )
            )
        request = commit.Request(group_id=group, topics=list(topics.values()))
        if member is not None:
            request.generation_id_or_member_epoch = member.generation_id
            request.member_id, request.group_instance_id = member.member_id, member.group_instance_id

        async def once() -> None:
            try:
                await self._ask_coordinator(
                    group,
                    commit,
                    request,
                    lambda response: [p.error_code for topic in response.topics for p in topic.partitions],
                )
            except UnknownMemberError as error:
                raise error if member is not None else GroupNotEmptyError(group) from error

        await self._cluster.persist(once)

    async def _ask_coordinator(
        self, group: str, api: Api, request: Any, codes_of: Callable[[Any], Iterable[int]]
    ) -> Any:
        try:
            connection = await self._cluster.coordinator(group)
            response = await connection.ask(api, request, most=_GROUP_MOST)
        except BrokerUnreachableError:
            self._cluster.forget_coordinator(group)
            raise
        for code in codes_of(response):
            if code:
                self._cluster.forget_coordinator(group)
                raise error_of(code, None, f"group {group}")
        return response

    def group_channel(self, group: str) -> "_CoordinatorChannel":
        return _CoordinatorChannel(self._cluster, group)

    def metrics(self) -> None:
        """The broker's are the broker's."""

    def administration(self) -> Administration:
        return Administration(ClusterAsker(self._cluster))

    async def groups(self) -> list[str]:
        listing = messages.ListGroups
        found: set[str] = set()
        await self._cluster.persist(self._cluster.refresh)
        for node_id in list(self._cluster.nodes):
            response = await (await self._cluster.node(node_id)).ask(listing, listing.Request())
            found.update(group.group_id for group in response.groups)
        return sorted(found)

    async def delete_group(self, group: str) -> None:
        delete = messages.DeleteGroups

        async def once() -> None:
            response = await (await self._cluster.coordinator(group)).ask(delete, delete.Request(groups_names=[group]))
            code = response.results[0].error_code
            if code == ErrorCode.NON_EMPTY_GROUP:
                raise GroupNotEmptyError(group)
            if code not in (ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND):
                self._cluster.forget_coordinator(group)
                raise error_of(code, None, f"group {group}")

        await self._cluster.persist(once)


class _CoordinatorChannel:
    """The `GroupChannel` to whichever node coordinates a group."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self._group = group

    async def ask(self, api: Api, request: Any, *, timeout_s: float, purpose: str = "membership") -> Any:
        try:
            connection = await self._cluster.coordinator(self._group, purpose)
            return await connection.ask(api, request, timeout_s=timeout_s)
        except BrokerUnreachableError:
            self._cluster.forget_coordinator(self._group)
            raise

    def moved(self) -> None:
        self._cluster.forget_coordinator(self._group)


def _failed(tp: TP, offset: int, error: StreamcoreError) -> Fetched:
    return Fetched(tp, Records(), offset, -1, -1, error)
