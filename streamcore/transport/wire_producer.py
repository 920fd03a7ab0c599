"""Producing over the wire: batches to the leaders of their partitions, in order, and each once (KIP-98).

A request whose answer is lost is sent again under the same sequence, and the broker knows it again. A partition has one
request on the way at a time, so that a second one never overtakes a first one that has to be sent again.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from streamcore.errors import AuthenticationError, BrokerUnreachableError, StreamcoreError
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.records.batch import NO_PRODUCER, record_count
from streamcore.records.codec import ProducerStamp
from streamcore.transport.base import Acks
from streamcore.transport.batches import encode_batches
from streamcore.transport.broker_errors import RetriableError, error_of
from streamcore.transport.cluster import Cluster
from streamcore.types import TP, OutRecord

logger = logging.getLogger(__name__)

_Produce = messages.Produce
_InitProducerId = messages.InitProducerId
_BY_NAME: Final = 12  # later versions name topics by their ids
TIMEOUT_MS: Final = 30_000
BATCH_MAX_BYTES: Final = 1_000_000  # below the default of max.message.bytes, of Kafka's and ours


class WireProducer:
    """One idempotent producer, for everything that a process writes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._producer_id = NO_PRODUCER
        self._producer_epoch = 0
        self._sequences: dict[TP, int] = {}
        self._locks: dict[TP, asyncio.Lock] = {}
        self._introducing = asyncio.Lock()

    async def produce(
        self, batches: Mapping[TP, Sequence[OutRecord]], *, acks: Acks, compression: str
    ) -> dict[TP, int | StreamcoreError]:
        """As `Transport.produce`."""
        async with AsyncExitStack() as stack:
            # Always in the same order, so that two callers never wait for each other.
            for tp in sorted(batches):
                await stack.enter_async_context(self._locks.setdefault(tp, asyncio.Lock()))
            results: dict[TP, int | StreamcoreError] = {}
            if acks is Acks.ALL and self._producer_id == NO_PRODUCER:
                try:
                    await self._introduce()
                except StreamcoreError as error:
                    return dict.fromkeys(batches, error)
            waiting: dict[TP, list[bytes]] = {}
            for tp, records in batches.items():
                try:
                    waiting[tp] = self._encoded(tp, records, acks, compression)
                except StreamcoreError as error:
                    results[tp] = error
            before: dict[TP, int] = {}  # records in the batches that have been sent
            try:
                # A request takes one batch per partition.
                while waiting:
                    sent = {tp: parts.pop(0) for tp, parts in waiting.items()}
                    for tp, result in (await self._deliver(sent, acks)).items():
                        if isinstance(result, StreamcoreError):
                            results[tp] = result
                            waiting[tp] = []
                        else:
                            results[tp] = result - before.get(tp, 0) if acks is not Acks.NONE else result
                            before[tp] = before.get(tp, 0) + record_count(sent[tp])
                    waiting = {tp: parts for tp, parts in waiting.items() if parts}
            except asyncio.CancelledError:
                # Nobody knows what has come of it; the numbers that it would have had are not used again.
                self._begin_anew()
                raise
            if acks is Acks.ALL and any(isinstance(result, StreamcoreError) for result in results.values()):
                # The sequences of what was refused are used up, and what became of the rest may not be known.
                self._begin_anew()
            return results

    def _encoded(self, tp: TP, records: Sequence[OutRecord], acks: Acks, compression: str) -> list[bytes]:
        if acks is not Acks.ALL:
            return encode_batches(records, compression=compression, max_bytes=BATCH_MAX_BYTES)
        stamp = ProducerStamp(self._producer_id, self._producer_epoch, self._sequences.get(tp, 0))
        made = encode_batches(records, compression=compression, max_bytes=BATCH_MAX_BYTES, producer=stamp)
        self._sequences[tp] = stamp.after(len(records)).base_sequence
        return made

    async def _introduce(self) -> None:
        """Get a producer id.

        Raises:
            StreamcoreError
        """
        async with self._introducing:
            if self._producer_id != NO_PRODUCER:
                return

            async def once() -> Any:
                request = _InitProducerId.Request(transactional_id=None, transaction_timeout_ms=TIMEOUT_MS)
                response = await (await self._cluster.anyone()).ask(_InitProducerId, request)
                if response.error_code:
                    raise RetriableError(response.error_code, f"no producer id: {ErrorCode(response.error_code).name}")
                return response

            response = await self._cluster.persist(once)
            self._producer_id, self._producer_epoch = response.producer_id, response.producer_epoch
            self._sequences.clear()

    def _begin_anew(self) -> None:
        """Get a new id before the next batch, so that no sequence is mistaken for one of the last."""
        self._producer_id = NO_PRODUCER

    async def _deliver(self, batches: Mapping[TP, bytes], acks: Acks) -> dict[TP, int | StreamcoreError]:
        """Send until each is on its log or has failed for good."""
        results: dict[TP, int | StreamcoreError] = {}
        left = dict(batches)
        failure: dict[TP, StreamcoreError] = {}

        async def once() -> None:
            for tp, result in (await self._send(left, acks)).items():
                if isinstance(result, RetriableError | BrokerUnreachableError):
                    failure[tp] = result
                else:
                    results[tp] = result
                    del left[tp]
            if left:
                raise next(iter(failure.values()))

        try:
            await self._cluster.persist(once)
        except (RetriableError, BrokerUnreachableError) as error:
            for tp in left:
                results[tp] = failure.get(tp, error)
        return results

    async def _send(self, batches: Mapping[TP, bytes], acks: Acks) -> dict[TP, int | StreamcoreError]:
        """One try."""
        by_node, errors = await self._cluster.locate(batches)
        results: dict[TP, int | StreamcoreError] = {**errors}
        answers = await asyncio.gather(
            *(self._send_to(node_id, {tp: batches[tp] for tp in tps}, acks) for node_id, tps in by_node.items())
        )
        for answer in answers:
            results.update(answer)
        return results

    async def _send_to(self, node_id: int, batches: Mapping[TP, bytes], acks: Acks) -> dict[TP, int | StreamcoreError]:
        topics: dict[str, Any] = {}
        for tp, batch in batches.items():
            topic = topics.setdefault(tp.topic, _Produce.TopicProduceData(name=tp.topic))
            topic.partition_data.append(_Produce.PartitionProduceData(index=tp.partition, records=batch))
        request = _Produce.Request(acks=int(acks), timeout_ms=TIMEOUT_MS, topic_data=list(topics.values()))
        try:
            connection = await self._cluster.node(node_id, "produce")
            if acks is Acks.NONE:
                await connection.send_only(_Produce, request, most=_BY_NAME)
                return dict.fromkeys(batches, -1)
            response = await connection.ask(_Produce, request, most=_BY_NAME)
        except (BrokerUnreachableError, AuthenticationError) as error:
            for topic in topics:
                self._cluster.forget(topic)
            return dict.fromkeys(batches, error)
        results: dict[TP, int | StreamcoreError] = {}
        for topic in response.responses:
            for partition in topic.partition_responses:
                tp = TP(topic.name, partition.index)
                results[tp] = self._result(tp, partition)
        return results

    def _result(self, tp: TP, partition: Any) -> int | StreamcoreError:
        code = partition.error_code
        if not code:
            return int(partition.base_offset)
        self._cluster.forget(tp.topic)
        return error_of(code, partition.error_message, str(tp))
