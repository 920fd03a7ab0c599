"""The cluster behind a log, for the page: nodes, partitions, groups, connections.

Looked at once for everybody who asks, and given out in pages that say how many there are.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from streamcore.clock import Clock
from streamcore.engine.log_status import LogStatus
from streamcore.errors import BrokerUnreachableError, StreamcoreError
from streamcore.transport.administration import ClusterInfo, ConnectionInfo, GroupInfo, ListedGroup, MemberInfo
from streamcore.transport.base import PartitionInfo
from streamcore.types import TP
from streamcore.web.payload import dump
from streamcore.web.queries import integer, text

T = TypeVar("T")

SNAPSHOT_S = 2.0  # how old what is shown may be; the page asks as often
ANSWER_S = 8.0  # for a cluster to answer, before the page says that it does not
COUNT_MAX = 200  # rows of one answer
GROUPS_MAX = 50  # groups of one answer: each costs requests to its coordinator
RATE_GAP_MAX_MS = 15_000  # nobody looked for longer than this: a mean over it would pass for a rate

CONNECTION_ORDERS = {
    "client": lambda each: (each.client_id, each.host, each.port),
    "newest": lambda each: -each.since_ms,
    "requests": lambda each: -each.requests,
    "bytes": lambda each: -(each.bytes_in + each.bytes_out),
    "in_flight": lambda each: -each.in_flight,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was found at one moment."""

    now_ms: int
    cluster: ClusterInfo | None  # None where the log is this process's alone
    places: Mapping[TP, PartitionInfo]
    groups: Sequence[ListedGroup]
    groups_problem: str | None
    connections: Sequence[ConnectionInfo] | None  # None where the cluster does not tell
    rates: Mapping[TP, float]  # records per second


class ClusterView:
    """The JSON endpoints below /api/cluster."""

    def __init__(self, log: LogStatus, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._lock = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        self._taken_s = 0.0

    async def overview(self, request: Request) -> Response:
        """Nodes, and everything else in numbers."""
        found = await self._current()
        cluster, connections = found.cluster, found.connections
        states: dict[str, int] = {}
        for group in found.groups:
            states[group.state or "unknown"] = states.get(group.state or "unknown", 0) + 1
        replicas = cluster.partitions.values() if cluster is not None else ()
        return _json(
            {
                "now_ms": found.now_ms,
                "url": self._log.transport.url,
                "cluster_id": cluster.cluster_id if cluster is not None else None,
                "controller_id": cluster.controller_id if cluster is not None else None,
                "is_private": cluster is None,
                "nodes": [
                    node._asdict() | {"leads": sum(each.leader == node.node_id for each in replicas)}
                    for node in (cluster.nodes if cluster is not None else ())
                ],
                "topics": len({tp.topic for tp in found.places}),
                "partitions": len(found.places),
                "offline": sum(place.offline is not None for place in found.places.values()),
                "under_replicated": sum(each.is_under_replicated for each in replicas),
                "size_bytes": sum(place.size_bytes for place in found.places.values()),
                "rate": round(sum(found.rates.values()), 2) if found.rates else None,
                "groups": len(found.groups),
                "groups_by_state": states,
                "groups_problem": found.groups_problem,
                "connections": len(connections) if connections is not None else None,
            }
        )

    async def partitions(self, request: Request) -> Response:
        """`?search=&from=&count=`: partitions of topics whose name contains the text."""
        found = await self._current()
        search = text(request.query_params, "search").lower()
        wanted = [tp for tp in sorted(found.places) if search in tp.topic.lower()]
        return _page(request, wanted, lambda tp: _partition(found, tp))

    async def groups(self, request: Request) -> Response:
        """`?search=&from=&count=`: groups whose name contains the text, with their lag."""
        found = await self._current()
        search = text(request.query_params, "search").lower()
        wanted = [group for group in found.groups if search in group.group.lower()]
        first, count = _window(request, GROUPS_MAX)
        shown = wanted[first : first + count]
        infos = await self._answer(self._describe(shown))
        rows = [await self._answer(self._summary(info, found)) for info in infos]
        return _json({"total": len(wanted), "from": first, "rows": rows, "problem": found.groups_problem})

    async def group(self, request: Request) -> Response:
        """`?name=&members_from=&partitions_from=&count=`: one group, its members, its partitions."""
        found = await self._current()
        name = text(request.query_params, "name", length_max=1000)
        listed = next((group for group in found.groups if group.group == name), None)
        if listed is None:
            raise HTTPException(404, f"there is no group {name!r}")
        (info,) = await self._answer(self._describe([listed]))
        rows = await self._answer(self._rows(info, found))
        count = integer(request.query_params, "count", 100, low=1, high=COUNT_MAX)
        first_member = integer(request.query_params, "members_from", 0)
        first = integer(request.query_params, "partitions_from", 0)
        lag: dict[str | None, int] = {}
        for row in rows:
            lag[row["member_id"]] = lag.get(row["member_id"], 0) + (row["lag"] or 0)
        members = info.members[first_member : first_member + count]
        return _json(
            _described(info, rows)
            | {
                "now_ms": found.now_ms,
                "members_from": first_member,
                "member_rows": [_member(member, lag.get(member.member_id, 0)) for member in members],
                "partitions_from": first,
                "partition_rows": rows[first : first + count],
            }
        )

    async def connections(self, request: Request) -> Response:
        """`?search=&order=&from=&count=`: connections whose client, address or software contains the text."""
        connections = (await self._current()).connections
        if connections is None:
            return _json({"total": None, "from": 0, "rows": []})
        order = text(request.query_params, "order", "client")
        if order not in CONNECTION_ORDERS:
            raise HTTPException(400, f"order={order!r} is none of {', '.join(CONNECTION_ORDERS)}")
        search = text(request.query_params, "search").lower()
        wanted = [
            each
            for each in connections
            if not search or search in f"{each.client_id}\n{each.host}:{each.port}\n{each.software}".lower()
        ]
        wanted.sort(key=CONNECTION_ORDERS[order])
        return _page(request, wanted, lambda each: each._asdict())

    # -- what there is -------------------------------------------------------------------------------------------------

    async def _current(self) -> Snapshot:
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            if self._snapshot is None or now_s - self._taken_s >= SNAPSHOT_S:
                self._snapshot = await self._answer(self._take(self._snapshot))
                self._taken_s = now_s
            return self._snapshot

    async def _answer(self, question: Any) -> Any:
        """A cluster's answer; a page that says that there is none is worth more than one that waits.

        Raises:
            BrokerUnreachableError
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                return await question
        except TimeoutError:
            raise BrokerUnreachableError(
                f"{self._log.transport.url} has not answered for {ANSWER_S:g} s: is it running?"
            ) from None

    async def _take(self, before: Snapshot | None) -> Snapshot:
        transport = self._log.transport
        administration = transport.administration()
        cluster = await administration.cluster() if administration is not None else None
        places = {place.tp: place for place in await transport.describe_partitions()}
        groups, problem = await self._groups(cluster)
        now_ms = self._clock.now_ms()
        connections = administration.connections() if administration is not None else None
        return Snapshot(now_ms, cluster, places, groups, problem, connections, _rates(before, places, now_ms))

    async def _groups(self, cluster: ClusterInfo | None) -> tuple[list[ListedGroup], str | None]:
        administration = self._log.transport.administration()
        if cluster is None or administration is None:
            return [ListedGroup(name, "", "", "", -1) for name in await self._log.transport.groups()], None
        alive = [node.node_id for node in cluster.nodes if node.problem is None]
        try:
            return await administration.groups(alive), None
        except StreamcoreError as error:
            return [], str(error)

    async def _describe(self, groups: Sequence[ListedGroup]) -> list[GroupInfo]:
        administration = self._log.transport.administration()
        if administration is None:
            return [GroupInfo(group, "", (), None) for group in groups]
        return await administration.describe_groups(groups)

    async def _summary(self, info: GroupInfo, found: Snapshot) -> dict[str, Any]:
        # A broker's clients must not wait until all of a page's groups are looked at.
        await asyncio.sleep(0)
        try:
            return _described(info, await self._rows(info, found))
        except StreamcoreError as error:
            return _described(info, []) | {"problem": info.problem or str(error)}

    async def _rows(self, info: GroupInfo, found: Snapshot) -> list[dict[str, Any]]:
        """The partitions of a group: what it has committed, and what its members are assigned."""
        status = await self._log.group(info.listed.group, dict(found.places))
        rows = {TP(row["topic"], row["partition"]): row for row in status["partitions"]}
        readers = {tp: member for member in info.members for tp in member.assigned}
        for tp in readers:
            place = found.places.get(tp)
            end = place.log_end_offset if place is not None else None
            nothing = {"committed_offset": None, "log_end_offset": end, "lag": None, "lag_ms": None}
            rows.setdefault(tp, {"topic": tp.topic, "partition": tp.partition} | nothing)
        return [
            row
            | {
                "member_id": readers[tp].member_id if tp in readers else None,
                "client_id": readers[tp].client_id if tp in readers else None,
            }
            for tp, row in sorted(rows.items())
        ]


def _json(value: Any) -> Response:
    return Response(dump(value), headers={"Cache-Control": "no-store"}, media_type="application/json")


def _window(request: Request, count_max: int) -> tuple[int, int]:
    count = integer(request.query_params, "count", min(50, count_max), low=1, high=count_max)
    return integer(request.query_params, "from", 0), count


def _page(request: Request, wanted: Sequence[T], row: Any) -> Response:
    first, count = _window(request, COUNT_MAX)
    return _json({"total": len(wanted), "from": first, "rows": [row(each) for each in wanted[first : first + count]]})


def _rates(before: Snapshot | None, places: Mapping[TP, PartitionInfo], now_ms: int) -> dict[TP, float]:
    if before is None or not 0 < now_ms - before.now_ms <= RATE_GAP_MAX_MS:
        return {}
    seconds = (now_ms - before.now_ms) / 1000
    return {
        tp: round(max(0, place.log_end_offset - before.places[tp].log_end_offset) / seconds, 2)
        for tp, place in places.items()
        if tp in before.places
    }


def _partition(found: Snapshot, tp: TP) -> dict[str, Any]:
    place = found.places[tp]
    replicas = found.cluster.partitions.get(tp) if found.cluster is not None else None
    return {
        "topic": tp.topic,
        "partition": tp.partition,
        "leader": replicas.leader if replicas is not None else None,
        "leader_epoch": replicas.leader_epoch if replicas is not None else None,
        "replicas": replicas.replicas if replicas is not None else None,
        "in_sync": replicas.in_sync if replicas is not None else None,
        "log_start_offset": place.log_start_offset,
        "log_end_offset": place.log_end_offset,
        "size_bytes": place.size_bytes,
        "rate": found.rates.get(tp),
        "offline": place.offline,
    }


def _described(info: GroupInfo, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    listed = info.listed
    known = [row["lag_ms"] for row in rows if row["lag_ms"] is not None]
    return {
        "group": listed.group,
        "state": listed.state,
        "type": listed.type,
        "protocol_type": listed.protocol_type,
        "assignor": info.assignor,
        "epoch": info.epoch,
        "coordinator": listed.coordinator,
        "members": len(info.members),
        "partitions": len(rows),
        "uncommitted": sum(row["committed_offset"] is None for row in rows),
        "lag": sum(row["lag"] or 0 for row in rows),
        "lag_ms": max(known, default=None),
        "lag_ms_unknown": sum(bool(row["lag"]) and row["lag_ms"] is None for row in rows),
        "problem": info.problem,
    }


def _member(member: MemberInfo, lag: int) -> dict[str, Any]:
    return {
        "member_id": member.member_id,
        "instance_id": member.instance_id,
        "client_id": member.client_id,
        "host": member.host,
        "topics": member.topics,
        "topic_regex": member.topic_regex,
        "epoch": member.epoch,
        "assigned": _by_topic(member.assigned),
        "target": _by_topic(member.target) if member.target is not None else None,
        "lag": lag,
    }


def _by_topic(tps: Sequence[TP]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for tp in tps:
        found.setdefault(tp.topic, []).append(tp.partition)
    return found
