"""A log in this very process: `embedded:DIR` on disk, `memory:` on a memory disk.

The only module of the framework's side that reaches into the broker's.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamcore.broker import shared_nodes
from streamcore.broker.authentication import Authentication
from streamcore.broker.broker import Broker, Endpoint, package_version
from streamcore.broker.config import BrokerConfig
from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.counters import NodeCounters
from streamcore.broker.handlers import HANDLERS
from streamcore.broker.listener import Listener
from streamcore.broker.node import Flush, Node, NodeConfig, Read
from streamcore.broker.requests import Context, Peer
from streamcore.clock import SYSTEM_CLOCK, Clock
from streamcore.errors import BrokerUnreachableError, LogOfflineError, StreamcoreError, UsageError
from streamcore.log.directory import LogDirectory
from streamcore.log.disk import Disk
from streamcore.log.memory_disk import MemoryDisk
from streamcore.log.topics import TopicMeta
from streamcore.protocol.messages import Api
from streamcore.records.compression import COMPRESSIONS
from streamcore.records.control import Aborted
from streamcore.transport.administration import Administration, ConnectionInfo
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
from streamcore.transport.batches import decode_batches, encode_batches
from streamcore.transport.broker_errors import check
from streamcore.types import TP, OutRecord

if TYPE_CHECKING:
    from streamcore.broker.metrics import NodeMetrics

_MEMORY_DIRECTORY = "/memory"
_THIS_PROCESS = Peer("127.0.0.1", 0)
# What a topic asks for wins over what the producer asks for; "producer" is not among them.
_TOPIC_COMPRESSION = {"uncompressed": "none"} | {name: name for name in COMPRESSIONS[1:]}
_memory_disks: dict[str, MemoryDisk] = {}


class EmbeddedTransport:
    """A log directory in this process, shared with every other transport here that names the same directory."""

    def __init__(
        self,
        directory: str,
        *,
        url: str | None = None,
        flush: str | None = None,
        config: NodeConfig | None = None,
        clock: Clock = SYSTEM_CLOCK,
        disk: Disk | None = None,
    ) -> None:
        """
        Args:
            directory: made when it does not exist yet.
            flush: "interval" or "always"; None takes what the directory is open with here, or "interval".
            config: everything else about how the log is kept, if we are the one who opens it.
            disk: where the directory is; None is the machine's own file system.
        """
        self.url = url or f"embedded:{directory}"
        self._path = directory if disk is not None else os.path.realpath(directory)
        self._shared_name = f"{directory} on {id(disk)}" if disk is not None else self._path
        self._flush = _flush_policy(flush) if flush is not None else None
        self._config = config or NodeConfig()
        if self._flush is not None:
            self._config = replace(self._config, flush=self._flush)
        self._clock = clock
        self._disk = disk
        self._node: Node | None = None
        self._listener: Listener | None = None
        self._fetches = 0

    async def start(self) -> None:
        if self._node is not None:
            return
        node = await shared_nodes.acquire(self._shared_name, self._make_node)
        if self._flush not in (None, node.config.flush):
            await shared_nodes.release(self._shared_name, node)
            raise UsageError(
                f"{self.url} is open in this process with flush={node.config.flush}; "
                f"it cannot be flush={self._flush} as well"
            )
        self._node = node

    async def listen(self, host: str, port: int) -> Endpoint | None:
        """Serve the log to Kafka clients as well, on this port or on any free one.

        Returns:
            Where; None where somebody else in this process has seen to it.
        """
        node = self.node
        if node.listener is None:
            node.listener = Listener(node, self._path, BrokerConfig(), self._clock)
        endpoint = await node.listener.start(host, port, or_any_port=True)
        self._listener = node.listener
        return endpoint

    async def stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop()

    async def stop(self) -> None:
        await self.stop_listening()
        node, self._node = self._node, None
        if node is not None:
            await shared_nodes.release(self._shared_name, node)

    def _make_node(self) -> Node:
        return Node(self._open_directory, self._config, self._clock)

    def _open_directory(self) -> LogDirectory:
        return LogDirectory.open(self._path, disk=self._disk, clock=self._clock)

    @property
    def node(self) -> Node:
        """The broker behind this transport."""
        if self._node is None:
            raise LogOfflineError(f"{self.url} is not open: await start() comes first")
        return self._node

    def metrics(self) -> "NodeMetrics":
        from streamcore.broker.metrics import NodeMetrics  # Prometheus is for programs with pages alone

        return NodeMetrics(lambda: self._node)

    @property
    def counters(self) -> NodeCounters:
        """What has passed through since the start, for whoever exports metrics."""
        return self.node.counters

    # --- topics -----------------------------------------------------------------------------------------------------

    async def topics(self) -> dict[str, TopicInfo]:
        return {name: _info(meta) for name, meta in self.node.topics.items()}

    async def create_topic(self, name: str, *, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        return _info(self.node.create_topic(name, partitions, config or {}))

    async def delete_topic(self, name: str) -> None:
        self.node.delete_topic(name)

    async def add_partitions(self, name: str, total: int) -> TopicInfo:
        return _info(self.node.add_partitions(name, total))

    async def alter_config(self, name: str, changes: Mapping[str, str | None]) -> TopicInfo:
        return _info(self.node.alter_config(name, changes))

    # --- records ----------------------------------------------------------------------------------------------------

    async def produce(
        self, batches: Mapping[TP, Sequence[OutRecord]], *, acks: Acks = Acks.ALL, compression: str = "none"
    ) -> dict[TP, int | StreamcoreError]:
        node = self.node
        results: dict[TP, int | StreamcoreError] = {}
        encoded: dict[TP, list[bytes]] = {}
        for tp, records in batches.items():
            try:
                config = node.log_config(tp)
                encoded[tp] = encode_batches(
                    records,
                    compression=_TOPIC_COMPRESSION.get(config.compression_type, compression),
                    max_bytes=min(config.max_message_bytes, config.segment_bytes),
                )
            except StreamcoreError as error:
                node.counters_of(tp.topic).failed_produces += 1
                results[tp] = error
        appended = await node.append(
            encoded, records={tp: len(batches[tp]) for tp in encoded}, durable=acks is Acks.ALL
        )
        for tp, result in appended.items():
            results[tp] = result if isinstance(result, StreamcoreError) else result.base_offset
        # A writer in a loop must not keep everybody else from running.
        await asyncio.sleep(0)
        return results

    async def fetch(
        self, positions: Mapping[TP, int], *, max_bytes: int = 1 << 20, max_wait_ms: int = 500
    ) -> list[Fetched]:
        tps = list(positions)
        if tps:
            self._fetches += 1
            turn = self._fetches % len(tps)
            tps = tps[turn:] + tps[:turn]
        reads = await self.node.fetch(
            {tp: positions[tp] for tp in tps},
            max_bytes=max_bytes,
            total_max_bytes=max(FETCH_MAX_BYTES, max_bytes),
            max_wait_ms=max_wait_ms,
        )
        return [self._fetched(read) for read in reads]

    def _fetched(self, read: Read) -> Fetched:
        if read.error is not None or not len(read.batches):
            return Fetched(read.tp, Records(), read.offset, read.last_stable_offset, read.log_start_offset, read.error)
        counters = self.node.counters_of(read.tp.topic)
        aborted = [Aborted(found.first_offset, found.producer_id) for found in read.aborted]
        records, next_offset, corrupt = decode_batches(read.batches, read.offset, aborted)
        if corrupt is not None and next_offset == read.offset:
            # What is readable before the damage comes first; the next fetch, from here, meets the damage.
            counters.failed_fetches += 1
            return Fetched(read.tp, Records(), read.offset, read.last_stable_offset, read.log_start_offset, corrupt)
        counters.records_out += next_offset - read.offset
        counters.bytes_out += len(read.batches)
        return Fetched(read.tp, records, next_offset, read.last_stable_offset, read.log_start_offset, None)

    async def list_offsets(self, tps: Iterable[TP], timestamp_ms: int) -> dict[TP, int]:
        node = self.node
        if timestamp_ms == EARLIEST:
            return {tp: node.log_start_offset(tp) for tp in tps}
        wanted_ms = None if timestamp_ms == LATEST else timestamp_ms
        return {tp: node.list_offset(tp, wanted_ms) for tp in tps}

    async def describe_partitions(self) -> list[PartitionInfo]:
        return [PartitionInfo(*state) for state in self.node.partitions()]

    async def delete_records(self, tp: TP, before_offset: int) -> int:
        return self.node.delete_records(tp, before_offset)

    # --- committed offsets ------------------------------------------------------------------------------------------

    async def committed(self, group: str, tps: Iterable[TP] | None = None) -> dict[TP, Committed]:
        self.node.use_group(group)
        return {tp: Committed(*value[:3]) for tp, value in self.node.committed(group, tps).items()}

    async def commit(self, group: str, offsets: Mapping[TP, Committed], member: Generation | None = None) -> None:
        if not group:
            raise UsageError("offsets are committed for a group, and a group has a name")
        if member is not None and self.node.door is not None:
            code = self.node.door.coordinator.check_commit(group, *member)
            check(code, None, f"group {group}")
        self.node.use_group(group)
        await self.node.commit(group, {tp: OffsetValue(*committed) for tp, committed in offsets.items()})

    def group_channel(self, group: str) -> "_LocalChannel | None":
        return _LocalChannel(self.node) if self.node.door is not None else None

    def administration(self) -> Administration | None:
        return Administration(_LocalAsker(self.node)) if self.node.door is not None else None

    async def groups(self) -> list[str]:
        return self.node.groups()

    async def delete_group(self, group: str) -> None:
        await self.node.delete_group(group)


class _LocalChannel:
    """The `GroupChannel` to the coordinator in this process: its handlers, without a socket."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def ask(self, api: Api, request: Any, *, timeout_s: float, purpose: str = "membership") -> Any:
        broker = self._node.door
        if broker is None:
            raise BrokerUnreachableError("the log in this process does not listen any more")
        _, handler, _ = HANDLERS[api.key]
        authentication = Authentication(broker.config, broker.users, asyncio.get_running_loop().time)
        return await handler(broker, request, Context(api.last_version, CLIENT_ID, _THIS_PROCESS, authentication))

    def moved(self) -> None:
        """There is only this one."""


class _LocalAsker:
    """Administration's questions to the broker in this process."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def ask(self, api: Api, request: Any, *, node_id: int | None = None, most: int | None = None) -> Any:
        _, handler, _ = HANDLERS[api.key]
        version = api.last_version if most is None else min(most, api.last_version)
        broker = self._broker
        authentication = Authentication(broker.config, broker.users, asyncio.get_running_loop().time)
        return await handler(broker, request, Context(version, CLIENT_ID, _THIS_PROCESS, authentication))

    def connections(self) -> list[ConnectionInfo]:
        return [
            ConnectionInfo(
                client.client_id,
                f"{client.software_name} {client.software_version}".strip(),
                *connection.peer,
                client.since_ms,
                client.requests,
                client.bytes_in,
                client.bytes_out,
                connection.in_flight,
            )
            for connection in self._broker.connections
            for client in (connection.client,)
        ]

    def software(self) -> str:
        return f"streamcore {package_version()}"

    @property
    def _broker(self) -> Broker:
        if self._node.door is None:
            raise BrokerUnreachableError("the log in this process does not listen any more")
        return self._node.door


class MemoryTransport(EmbeddedTransport):
    """The same log on a memory disk: no file, no thread, no background task, so a test can own the event loop.

    What was written stays as long as this object lives, across `stop` and `start`; a named one (`memory:orders`) stays
    as long as the process, for whoever names it again.
    """

    def __init__(self, name: str = "", *, flush: str | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        disk = _memory_disks.setdefault(name, MemoryDisk()) if name else MemoryDisk()
        config = NodeConfig(background=False, off_loop=False)
        super().__init__(_MEMORY_DIRECTORY, url=f"memory:{name}", flush=flush, config=config, clock=clock, disk=disk)


def forget_memory(name: str) -> None:
    """Let go of what `memory:name` holds; transports that have it open keep theirs."""
    _memory_disks.pop(name, None)


def _info(meta: TopicMeta) -> TopicInfo:
    return TopicInfo(meta.name, meta.partitions, meta.config, meta.internal)


def _flush_policy(flush: str) -> Flush:
    if flush == "interval":
        return "interval"
    if flush == "always":
        return "always"
    raise UsageError(f"flush={flush!r} is unknown: it is interval or always")
