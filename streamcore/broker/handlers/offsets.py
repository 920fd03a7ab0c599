"""OffsetCommit 2-9, OffsetFetch 1-9, OffsetDelete 0: how far groups are."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.coordinator.offsets import METADATA_MAX_BYTES
from streamcore.broker.requests import Context
from streamcore.errors import StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.types import TP

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Commit = messages.OffsetCommit
_Fetch = messages.OffsetFetch
_GROUPS_FROM = 8  # several groups at once (KIP-709)
_NO_OFFSET = -1
_MEMBER_EPOCHS_FROM = 9  # of consumer groups (KIP-848)
_NOT_FOUND_FROM = 9  # before, a generation of no group is an illegal one


async def offset_commit(broker: "Broker", request: Any, context: Context) -> Any:
    refused = broker.coordinator.check_commit(
        request.group_id,
        request.generation_id_or_member_epoch,
        request.member_id,
        request.group_instance_id,
        knows_epochs=context.version >= _MEMBER_EPOCHS_FROM,
    )
    if refused == ErrorCode.GROUP_ID_NOT_FOUND and context.version < _NOT_FOUND_FROM:
        refused = ErrorCode.ILLEGAL_GENERATION
    codes, taken = offsets_in(broker, request.topics)
    if refused:
        codes, taken = dict.fromkeys(codes, refused), {}
    if taken:
        try:
            await broker.node.commit(request.group_id, taken)
        except StreamcoreError as error:
            codes.update(dict.fromkeys(taken, offset_code(error)))
    return _Commit.Response(
        topics=[
            _Commit.OffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    _Commit.OffsetCommitResponsePartition(
                        partition_index=p.partition_index, error_code=codes[TP(topic.name, p.partition_index)]
                    )
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def offsets_in(broker: "Broker", topics: Any) -> tuple[dict[TP, int], dict[TP, OffsetValue]]:
    """What a request wants to commit: a code for every partition, and the offsets of those that it can."""
    codes: dict[TP, int] = {}
    taken: dict[TP, OffsetValue] = {}
    for topic in topics:
        for partition in topic.partitions:
            tp = TP(topic.name, partition.partition_index)
            metadata = partition.committed_metadata or ""
            codes[tp] = _problem(broker, tp, metadata)
            if not codes[tp]:
                taken[tp] = OffsetValue(
                    partition.committed_offset, metadata, broker.clock.now_ms(), partition.committed_leader_epoch
                )
    return codes, taken


def _problem(broker: "Broker", tp: TP, metadata: str) -> int:
    meta = broker.node.topics.get(tp.topic)
    if meta is None or not 0 <= tp.partition < meta.partitions:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if len(metadata.encode()) > METADATA_MAX_BYTES:
        return ErrorCode.OFFSET_METADATA_TOO_LARGE
    return ErrorCode.NONE


def offset_code(error: StreamcoreError) -> int:
    """What a client is told that cannot have its offsets."""
    # A client tries this one again; an unknown one ends it.
    return error.code if error.code not in (-1, ErrorCode.KAFKA_STORAGE_ERROR) else ErrorCode.COORDINATOR_NOT_AVAILABLE


async def offset_fetch(broker: "Broker", request: Any, context: Context) -> Any:
    if context.version >= _GROUPS_FROM:
        return _Fetch.Response(groups=[_group(broker, group, request.require_stable) for group in request.groups])
    asked = None if request.topics is None else [(t.name, t.partition_indexes) for t in request.topics]
    try:
        found = _committed(broker, request.group_id, asked, request.require_stable)
    except StreamcoreError as error:
        return _Fetch.Response(error_code=offset_code(error))
    return _Fetch.Response(
        topics=[
            _Fetch.OffsetFetchResponseTopic(
                name=name, partitions=[_Fetch.OffsetFetchResponsePartition(**values) for values in partitions]
            )
            for name, partitions in found
        ]
    )


def _group(broker: "Broker", group: Any, is_stable_only: bool) -> Any:
    refused = broker.coordinator.check_fetch(group.group_id, group.member_id, group.member_epoch)
    if refused:
        return _Fetch.OffsetFetchResponseGroup(group_id=group.group_id, error_code=refused)
    asked = None if group.topics is None else [(t.name, t.partition_indexes) for t in group.topics]
    try:
        found = _committed(broker, group.group_id, asked, is_stable_only)
    except StreamcoreError as error:
        return _Fetch.OffsetFetchResponseGroup(group_id=group.group_id, error_code=offset_code(error))
    return _Fetch.OffsetFetchResponseGroup(
        group_id=group.group_id,
        topics=[
            _Fetch.OffsetFetchResponseTopics(
                name=name, partitions=[_Fetch.OffsetFetchResponsePartitions(**values) for values in partitions]
            )
            for name, partitions in found
        ],
    )


def _committed(
    broker: "Broker", group: str, asked: Iterable[tuple[str, Iterable[int]]] | None, is_stable_only: bool
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Per topic, what each partition's answer says.

    Raises:
        LogOfflineError: the offsets cannot be read; that is never the same as "none".
    """
    known = broker.node.committed(group, None)
    if asked is None:
        partitions: dict[str, list[int]] = {}
        for tp in sorted(known):
            partitions.setdefault(tp.topic, []).append(tp.partition)
        asked = partitions.items()
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for name, indexes in asked:
        answers = []
        for partition in indexes:
            tp = TP(name, partition)
            if is_stable_only and broker.node.is_unstable(group, tp):
                # Whoever reads on from the older offset would do again what is about to be committed (KIP-447).
                answers.append(_offset(partition, None) | {"error_code": ErrorCode.UNSTABLE_OFFSET_COMMIT})
            else:
                answers.append(_offset(partition, known.get(tp)))
        found.append((name, answers))
    return found


def _offset(partition: int, value: OffsetValue | None) -> dict[str, Any]:
    if value is None:
        return {"partition_index": partition, "committed_offset": _NO_OFFSET, "metadata": ""}
    return {
        "partition_index": partition,
        "committed_offset": value.offset,
        "committed_leader_epoch": value.leader_epoch,
        "metadata": value.metadata,
    }


HANDLERS = {_Commit: offset_commit, _Fetch: offset_fetch}
