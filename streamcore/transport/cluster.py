"""A cluster as a client sees it: which nodes there are, who leads what, and connections to them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from streamcore.errors import (
    AuthenticationError,
    BrokerUnreachableError,
    StreamcoreError,
    UnknownTopicError,
    UsageError,
)
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.messages import Api
from streamcore.transport.administration import ConnectionInfo
from streamcore.transport.broker_errors import RetriableError
from streamcore.transport.client_settings import ClientSecurity
from streamcore.transport.node_connection import NodeConnection
from streamcore.types import TP

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Metadata = messages.Metadata
_FindCoordinator = messages.FindCoordinator
PORT_DEFAULT: Final = 9092
RETRY_FIRST_S: Final = 0.02
RETRY_MOST_S: Final = 1.0
# How long something is tried again before the caller is told; Kafka's delivery.timeout.ms is two minutes, but here
# somebody with a status page waits behind it.
RETRY_FOR_S: Final = 30.0


class Node(NamedTuple):
    node_id: int
    host: str
    port: int


class TopicLayout(NamedTuple):
    """A topic's partitions and who leads them; -1 is nobody."""

    leaders: tuple[int, ...]
    is_internal: bool


class Cluster:
    """Connections are opened when they are needed, and again when they are lost."""

    def __init__(
        self, bootstrap: Callable[[], list[tuple[str, int]]], client_id: str, security: ClientSecurity
    ) -> None:
        """
        Args:
            bootstrap: addresses to begin with, asked for anew whenever no known node answers.
        Raises:
            UsageError: the security leads to files that are none.
        """
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._security = security
        self._tls = security.tls_context()
        self.nodes: dict[int, Node] = {}
        self.controller_id = -1
        self.layouts: dict[str, TopicLayout] = {}
        self._connections: dict[tuple[str, int, str], NodeConnection] = {}
        self._opening: dict[tuple[str, int, str], asyncio.Lock] = {}
        self._coordinators: dict[str, int] = {}

    @classmethod
    def parse(cls, addresses: str, client_id: str, security: ClientSecurity) -> "Cluster":
        """From `host:port,host:port`.

        Raises:
            UsageError
        """
        bootstrap: list[tuple[str, int]] = []
        for address in addresses.split(","):
            host, colon, port = address.strip().rpartition(":")
            if not colon:
                host, port = port, str(PORT_DEFAULT)
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise UsageError(f"broker address {address!r} is not HOST:PORT, as in kafka://127.0.0.1:9092")
            bootstrap.append((host.strip("[]"), int(port)))
        return cls(lambda: bootstrap, client_id, security)

    async def close(self) -> None:
        connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            await connection.close()

    # -- where things are ----------------------------------------------------------------------------------------------

    async def refresh(self, topics: Iterable[str] | None = None) -> None:
        """Ask what there is: some topics, or all of them.

        Raises:
            BrokerUnreachableError: nobody answers.
        """
        names = None if topics is None else [_Metadata.MetadataRequestTopic(name=name) for name in topics]
        # Topics are made on purpose, never by asking for them.
        request = _Metadata.Request(topics=names, allow_auto_topic_creation=False)
        response = await (await self.anyone()).ask(_Metadata, request, most=9)
        self.nodes = {broker.node_id: Node(broker.node_id, broker.host, broker.port) for broker in response.brokers}
        self.controller_id = response.controller_id
        found: dict[str, TopicLayout] = {}
        for topic in response.topics:
            if topic.error_code in (ErrorCode.NONE, ErrorCode.LEADER_NOT_AVAILABLE):
                leaders = [-1] * len(topic.partitions)
                for partition in topic.partitions:
                    if partition.partition_index < len(leaders):
                        leaders[partition.partition_index] = partition.leader_id
                found[topic.name] = TopicLayout(tuple(leaders), topic.is_internal)
        if topics is None:
            self.layouts = found
        else:
            for topic in response.topics:
                self.layouts.pop(topic.name, None)
            self.layouts.update(found)

    async def leaders(self, tps: Iterable[TP]) -> dict[int, list[TP]]:
        """Which node leads which of the partitions.

        Raises:
            BrokerUnreachableError, UnknownTopicError
            RetriableError: a partition without a leader.
        """
        tps = list(tps)
        unknown = {tp.topic for tp in tps if self.leader(tp) is None}
        if unknown:
            await self.refresh(unknown)
        by_node: dict[int, list[TP]] = {}
        for tp in tps:
            leader = self.leader(tp)
            if leader is None:
                if tp.topic in self.layouts and tp.partition < len(self.layouts[tp.topic].leaders):
                    raise RetriableError(ErrorCode.LEADER_NOT_AVAILABLE, f"{tp} has no leader at the moment")
                raise UnknownTopicError(f"there is no topic {tp.topic!r} with a partition {tp.partition}")
            by_node.setdefault(leader, []).append(tp)
        return by_node

    async def locate(self, tps: Iterable[TP]) -> tuple[dict[int, list[TP]], dict[TP, StreamcoreError]]:
        """Which node leads which of the partitions, and why there is none for the others."""
        tps = list(tps)
        try:
            return await self.leaders(tps), {}
        except (BrokerUnreachableError, AuthenticationError) as error:
            return {}, dict.fromkeys(tps, error)
        except StreamcoreError:
            pass  # of one of them, which must not hide the others
        by_node: dict[int, list[TP]] = {}
        errors: dict[TP, StreamcoreError] = {}
        for tp in tps:
            try:
                for node_id in await self.leaders([tp]):
                    by_node.setdefault(node_id, []).append(tp)
            except StreamcoreError as error:
                errors[tp] = error
        return by_node, errors

    def leader(self, tp: TP) -> int | None:
        """As far as is known."""
        layout = self.layouts.get(tp.topic)
        if layout is None or not 0 <= tp.partition < len(layout.leaders):
            return None
        leader = layout.leaders[tp.partition]
        return leader if leader in self.nodes else None

    def forget(self, topic: str) -> None:
        """Something about a topic has turned out to be wrong."""
        self.layouts.pop(topic, None)

    # -- connections ---------------------------------------------------------------------------------------------------

    async def anyone(self) -> NodeConnection:
        """A connection to some node.

        Raises:
            BrokerUnreachableError: none answers.
        """
        addresses = [(node.host, node.port) for node in self.nodes.values()]
        addresses += [address for address in self._bootstrap() if address not in addresses]
        for host, port in addresses:
            known = self._connections.get((host, port, ""))
            if known is not None and known.is_open:
                return known
        failure: BrokerUnreachableError | None = None
        for host, port in addresses:
            try:
                return await self._connection(host, port, "")
            except BrokerUnreachableError as error:
                failure = failure or error
        raise failure or BrokerUnreachableError("nobody says where a broker listens at the moment")

    async def node(self, node_id: int, purpose: str = "") -> NodeConnection:
        """A connection to a node; requests of one purpose wait for each other, those of two do not.

        Raises:
            BrokerUnreachableError
        """
        node = self.nodes.get(node_id)
        if node is None:
            await self.refresh(())
            node = self.nodes.get(node_id)
            if node is None:
                raise BrokerUnreachableError(f"node {node_id} is not in the cluster at the moment")
        return await self._connection(node.host, node.port, purpose)

    async def controller(self) -> NodeConnection:
        """Who makes and deletes topics."""
        if self.controller_id not in self.nodes:
            await self.refresh(())
        return await self.node(self.controller_id) if self.controller_id in self.nodes else await self.anyone()

    async def coordinator(self, group: str, purpose: str = "coordinator") -> NodeConnection:
        """Who keeps a group's offsets, and its members.

        Raises:
            BrokerUnreachableError, RetriableError
        """
        node_id = self._coordinators.get(group)
        if node_id is None or node_id not in self.nodes:
            response = await (await self.anyone()).ask(_FindCoordinator, _FindCoordinator.Request(key=group), most=2)
            if response.error_code:
                raise RetriableError(response.error_code, f"group {group} has no coordinator at the moment")
            node_id = response.node_id
            self.nodes[node_id] = Node(node_id, response.host, response.port)
            self._coordinators[group] = node_id
        return await self.node(node_id, purpose)

    def forget_coordinator(self, group: str) -> None:
        self._coordinators.pop(group, None)

    async def _connection(self, host: str, port: int, purpose: str) -> NodeConnection:
        place = (host, port, purpose)
        known = self._connections.get(place)
        if known is not None and known.is_open:
            return known
        async with self._opening.setdefault(place, asyncio.Lock()):
            known = self._connections.get(place)
            if known is None or not known.is_open:
                known = NodeConnection(host, port, self._client_id, self._security, self._tls)
                await known.open()
                self._connections[place] = known
            return known

    # -- trying again --------------------------------------------------------------------------------------------------

    async def persist(self, what: Callable[[], Awaitable[T]], *, for_s: float = RETRY_FOR_S) -> T:
        """Do something until it works, or has not for so long.

        Raises:
            StreamcoreError: what was in the way the last time.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + for_s
        delay_s = RETRY_FIRST_S
        while True:
            try:
                return await what()
            except (RetriableError, BrokerUnreachableError):
                if loop.time() + delay_s >= deadline_s:
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(RETRY_MOST_S, delay_s * 2)

    async def ask_anyone(self, api: Api, request: Any, *, most: int | None = None) -> Any:
        async def once() -> Any:
            return await (await self.anyone()).ask(api, request, most=most)

        return await self.persist(once)


class ClusterAsker:
    """Administration's questions to the nodes, beside the records' connections, behind which they would wait."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def ask(self, api: Api, request: Any, *, node_id: int | None = None, most: int | None = None) -> Any:
        if node_id is None:
            return await (await self._cluster.anyone()).ask(api, request, most=most)
        return await (await self._cluster.node(node_id, "administration")).ask(api, request, most=most)

    def connections(self) -> list[ConnectionInfo] | None:
        """The Kafka protocol has no question for it."""
        return None

    def software(self) -> str | None:
        return None
