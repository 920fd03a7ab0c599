"""What a cluster tells of itself: nodes, who leads what, groups with their members. By the Kafka protocol alone, so
that it is the same for a broker of ours, in this process or not, and for Apache Kafka.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.consumer_protocol import decode_assignment, decode_subscription
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.errors import MalformedMessageError
from streamcore.protocol.messages import Api
from streamcore.transport.broker_errors import check
from streamcore.types import TP

logger = logging.getLogger(__name__)

_METADATA_MOST: Final = 9  # later versions name topics by their ids
CLASSIC, CONSUMER = "classic", "consumer"  # types of groups: joined by the members, or by KIP-848
_CONSUMER_PROTOCOL: Final = "consumer"  # the protocol type whose members' bytes can be read


class Asker(Protocol):
    """Requests to a cluster."""

    async def ask(self, api: Api, request: Any, *, node_id: int | None = None, most: int | None = None) -> Any:
        """A node's answer, or anybody's; at most version `most`.

        Raises:
            BrokerUnreachableError, UnsupportedVersionError
        """

    def connections(self) -> "list[ConnectionInfo] | None":
        """Of all clients; None where the cluster does not tell."""

    def software(self) -> str | None:
        """What its nodes run; None where only they could tell."""


class ConnectionInfo(NamedTuple):
    """One client's connection."""

    client_id: str
    software: str  # name and version, as the client says; may be empty
    host: str
    port: int
    since_ms: int
    requests: int
    bytes_in: int
    bytes_out: int
    in_flight: int


class NodeInfo(NamedTuple):
    """One broker; None is what it does not tell, or cannot because it does not answer."""

    node_id: int
    host: str
    port: int
    rack: str | None
    version: str | None
    replicas: int | None
    size_bytes: int | None  # of all partitions that it holds
    free_bytes: int | None  # of its disks
    problem: str | None


class Replicas(NamedTuple):
    """Who holds a partition."""

    leader: int  # -1 is nobody
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]

    @property
    def is_under_replicated(self) -> bool:
        return len(self.in_sync) < len(self.replicas)


class ClusterInfo(NamedTuple):
    """Everything but groups and connections."""

    cluster_id: str | None
    controller_id: int
    nodes: tuple[NodeInfo, ...]
    partitions: Mapping[TP, Replicas]
    internal: frozenset[str]  # topics that the cluster keeps for itself


class ListedGroup(NamedTuple):
    """A group as a list shows it."""

    group: str
    protocol_type: str
    state: str
    type: str
    coordinator: int


class MemberInfo(NamedTuple):
    """Who reads for a group."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    topics: tuple[str, ...]  # subscribed, as far as they are known
    assigned: tuple[TP, ...]
    # Of the newer protocol; None where a group has none
    epoch: int | None = None  # of the group, up to which the member has followed
    topic_regex: str | None = None  # beside the topics
    target: tuple[TP, ...] | None = None  # what it shall have


class GroupInfo(NamedTuple):
    """A group and who reads for it."""

    listed: ListedGroup
    assignor: str  # or protocol; empty while nothing is agreed
    members: tuple[MemberInfo, ...]
    problem: str | None  # why the members are not known
    epoch: int | None = None  # how often a group of the newer protocol has changed


class Administration:
    """Questions to a cluster."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def connections(self) -> list[ConnectionInfo] | None:
        """Of all clients; None where the cluster does not tell."""
        return self._asker.connections()

    async def cluster(self) -> ClusterInfo:
        """
        Raises:
            BrokerUnreachableError: nobody answers.
        """
        metadata = messages.Metadata
        request = metadata.Request(topics=None, allow_auto_topic_creation=False)
        response = await self._asker.ask(metadata, request, most=_METADATA_MOST)
        partitions: dict[TP, Replicas] = {}
        for topic in response.topics:
            for partition in topic.partitions:
                partitions[TP(topic.name, partition.partition_index)] = Replicas(
                    partition.leader_id,
                    partition.leader_epoch,
                    tuple(partition.replica_nodes),
                    tuple(partition.isr_nodes),
                )
        brokers = sorted(response.brokers, key=lambda each: int(each.node_id))
        nodes = await asyncio.gather(*map(self._node, brokers))
        internal = frozenset(topic.name for topic in response.topics if topic.is_internal)
        return ClusterInfo(response.cluster_id, response.controller_id, tuple(nodes), partitions, internal)

    async def _node(self, broker: Any) -> NodeInfo:
        """What a node tells of itself; one that is down must not hide the others."""
        place = (broker.node_id, broker.host, broker.port, broker.rack)
        describe, versions = messages.DescribeLogDirs, messages.ApiVersions
        try:
            known = await self._asker.ask(
                versions,
                versions.Request(client_software_name="streamcore", client_software_version="0.1"),
                node_id=broker.node_id,
                most=3,
            )
        except StreamcoreError as error:
            return NodeInfo(*place, None, None, None, None, str(error))
        version = self._asker.software() or _version_of(known)
        try:
            answer = await self._asker.ask(describe, describe.Request(topics=None), node_id=broker.node_id)
        except StreamcoreError as error:
            logger.debug("node %d does not tell its sizes: %s", broker.node_id, error)
            return NodeInfo(*place, version, None, None, None, None)
        sizes = [p.partition_size for result in answer.results for topic in result.topics for p in topic.partitions]
        free = [result.usable_bytes for result in answer.results if result.usable_bytes >= 0]
        return NodeInfo(*place, version, len(sizes), sum(sizes), sum(free) if free else None, None)

    async def groups(self, node_ids: Iterable[int]) -> list[ListedGroup]:
        """Every group, by name. A group is listed by its coordinator.

        Raises:
            BrokerUnreachableError: one of the nodes does not answer.
        """
        listing = messages.ListGroups
        found: dict[str, ListedGroup] = {}
        for node_id in node_ids:
            response = await self._asker.ask(listing, listing.Request(), node_id=node_id)
            check(response.error_code, None, f"the groups of node {node_id}")
            for group in response.groups:
                found[group.group_id] = ListedGroup(
                    group.group_id, group.protocol_type, group.group_state, group.group_type or CLASSIC, node_id
                )
        return [found[name] for name in sorted(found)]

    async def describe_groups(self, groups: Sequence[ListedGroup]) -> list[GroupInfo]:
        """The members of groups, in their order; what cannot be had comes as the problem of its group."""
        described: dict[str, GroupInfo] = {}
        for kind, describe in ((CLASSIC, self._describe_classic), (CONSUMER, self._describe_consumer)):
            for node_id in {group.coordinator for group in groups if group.type.lower() == kind}:
                share = [group for group in groups if group.coordinator == node_id and group.type.lower() == kind]
                try:
                    described.update({info.listed.group: info for info in await describe(node_id, share)})
                except StreamcoreError as error:
                    described.update({group.group: GroupInfo(group, "", (), str(error)) for group in share})
        strange = "members of groups of this type are not shown here"
        return [described.get(group.group) or GroupInfo(group, "", (), strange) for group in groups]

    async def _describe_classic(self, node_id: int, groups: Sequence[ListedGroup]) -> list[GroupInfo]:
        describe = messages.DescribeGroups
        request = describe.Request(groups=[group.group for group in groups])
        response = await self._asker.ask(describe, request, node_id=node_id, most=5)
        answers = {answer.group_id: answer for answer in response.groups}
        return [_classic(group, answers.get(group.group)) for group in groups]

    async def _describe_consumer(self, node_id: int, groups: Sequence[ListedGroup]) -> list[GroupInfo]:
        describe = messages.ConsumerGroupDescribe
        request = describe.Request(group_ids=[group.group for group in groups])
        response = await self._asker.ask(describe, request, node_id=node_id)
        answers = {answer.group_id: answer for answer in response.groups}
        return [_consumer(group, answers.get(group.group)) for group in groups]


def _version_of(answer: Any) -> str | None:
    """What a node's finalized features say; the protocol has no field for the program's own version."""
    for feature in answer.finalized_features:
        if feature.name == "metadata.version":
            return f"metadata.version {feature.max_version_level}"
    return None


def _classic(group: ListedGroup, answer: Any) -> GroupInfo:
    if answer is None or answer.error_code:
        return GroupInfo(group, "", (), _problem(answer))
    members = tuple(
        MemberInfo(
            member.member_id,
            member.group_instance_id,
            member.client_id,
            member.client_host.lstrip("/"),
            *_bytes_of(group, bytes(member.member_metadata), bytes(member.member_assignment)),
        )
        for member in answer.members
    )
    return GroupInfo(group._replace(state=answer.group_state), answer.protocol_data, _in_order(members), None)


def _bytes_of(group: ListedGroup, metadata: bytes, assignment: bytes) -> tuple[tuple[str, ...], tuple[TP, ...]]:
    """(topics, partitions) of a member; none where they are another protocol's (Kafka Connect's), or not agreed yet."""
    if group.protocol_type != _CONSUMER_PROTOCOL:
        return (), ()
    topics: tuple[str, ...] = ()
    try:
        topics = decode_subscription(metadata).topics if metadata else ()
        return topics, tuple(sorted(decode_assignment(assignment)))
    except MalformedMessageError as error:
        logger.debug("what a member of group %s says cannot be read: %s", group.group, error)
        return topics, ()


def _consumer(group: ListedGroup, answer: Any) -> GroupInfo:
    if answer is None or answer.error_code:
        return GroupInfo(group, "", (), _problem(answer))
    members = tuple(
        MemberInfo(
            member.member_id,
            member.instance_id,
            member.client_id,
            member.client_host.lstrip("/"),
            tuple(member.subscribed_topic_names),
            _partitions_of(member.assignment),
            member.member_epoch,
            member.subscribed_topic_regex or None,
            _partitions_of(member.target_assignment),
        )
        for member in answer.members
    )
    listed = group._replace(state=answer.group_state)
    return GroupInfo(listed, answer.assignor_name, _in_order(members), None, answer.group_epoch)


def _partitions_of(assignment: Any) -> tuple[TP, ...]:
    return tuple(
        sorted(
            TP(topic.topic_name, partition) for topic in assignment.topic_partitions for partition in topic.partitions
        )
    )


def _in_order(members: Iterable[MemberInfo]) -> tuple[MemberInfo, ...]:
    return tuple(sorted(members, key=lambda member: (member.client_id, member.member_id)))


def _problem(answer: Any) -> str:
    if answer is None:
        return "its coordinator does not speak of it"
    try:
        return f"its coordinator answers {ErrorCode(answer.error_code).name}"
    except ValueError:
        return f"its coordinator answers error {answer.error_code}"
