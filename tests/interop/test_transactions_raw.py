"""What a broker answers to hand-made requests of transactions, in their order: Apache Kafka's answers are recorded.

A request is sent again while an earlier transaction is still being ended, as every client does: Kafka writes its
markers after it has answered.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pytest

from streamcore.records.codec import ProducerStamp, encode_stamped
from tests.interop.cluster import PATIENCE_S, START_MS, Cluster, fresh, until
from tests.interop.raw_client import RawClient
from tests.interop.topics import create_topic

pytestmark = pytest.mark.interop

READ_UNCOMMITTED: Final = 0
READ_COMMITTED: Final = 1
LATEST: Final = -1
TIMEOUT_MS: Final = 60_000
# Versions of clients that do not know transaction version 2 (KIP-890), and of those that do.
ADD_PARTITIONS, ADD_OFFSETS = 3, 3
OLD_PRODUCE, OLD_OFFSET_COMMIT, OLD_END = 11, 4, 4
PRODUCE, OFFSET_COMMIT, END = 12, 5, 5
# What a client takes for "ask again in a moment".
PASSING: Final = {
    "concurrent_transactions",
    "coordinator_not_available",
    "coordinator_load_in_progress",
    "not_coordinator",
    "not_leader_or_follower",
    "not_enough_replicas",  # how clients before Produce 12 know concurrent transactions
}


class ProducerEpoch(NamedTuple):
    producer_id: int
    epoch: int

    def moved(self, by: int) -> "ProducerEpoch":
        return self._replace(epoch=self.epoch + by)


NOBODY: Final = ProducerEpoch(-1, -1)


@dataclass
class Scene:
    """One producer, one topic of two partitions, one group: and every request that a transaction can be of."""

    client: RawClient
    topic: str
    other: str  # a topic that was never made
    group: str = field(default_factory=lambda: fresh("raw-group"))
    transactional_id: str = field(default_factory=lambda: fresh("raw-transactional"))
    producer: ProducerEpoch = NOBODY
    sequences: dict[tuple[ProducerEpoch, int], int] = field(default_factory=dict)

    def ask(self, api: str, version: int, fields: Mapping[str, Any], errors: Callable[[Any], list[Any]]) -> Any:
        """The first answer that is not about something in passing."""

        def look() -> Any:
            response = self.client.ask(api, version, fields, lenient=True)
            return None if PASSING & {error.name for error in errors(response)} else response

        return until(look, what=f"an answer to {api}")

    def init(
        self,
        version: int = 5,
        *,
        transactional_id: str | None = "",
        timeout_ms: int = TIMEOUT_MS,
        expected: ProducerEpoch = NOBODY,
    ) -> tuple[str, bool, int]:
        """The error, whether the producer id is the one from before, and the epoch."""
        response = self.ask(
            "init_producer_id",
            version,
            {
                "transactional_id": transactional_id or self.transactional_id,
                "transaction_timeout": timeout_ms,
                "producer_id": expected.producer_id,
                "producer_epoch": expected.epoch,
            },
            lambda response: [response.error_code],
        )
        is_same = response.producer_id == self.producer.producer_id
        if response.error_code.name == "none":
            self.producer = ProducerEpoch(response.producer_id, response.producer_epoch)
        return response.error_code.name, is_same, response.producer_epoch

    def add(
        self,
        *partitions: int,
        topics: Sequence[str] = (),
        version: int = ADD_PARTITIONS,
        producer: ProducerEpoch | None = None,
        transactional_id: str = "",
    ) -> list[str]:
        """AddPartitionsToTxn: an error for each partition."""
        sender = producer or self.producer
        response = self.ask(
            "add_partitions_to_txn",
            version,
            {
                "v3_and_below_transactional_id": transactional_id or self.transactional_id,
                "v3_and_below_producer_id": sender.producer_id,
                "v3_and_below_producer_epoch": sender.epoch,
                "v3_and_below_topics": [
                    {"name": name, "partitions": list(partitions)} for name in topics or [self.topic]
                ],
            },
            lambda response: self._added(response),
        )
        return [error.name for error in self._added(response)]

    def _added(self, response: Any) -> list[Any]:
        found = {
            (topic.name, part.partition_index): part.partition_error_code
            for topic in response.results_by_topic_v3_and_below
            for part in topic.results_by_partition
        }
        # The topic that is there first; Kafka's order is that of a hash map.
        return [found[place] for place in sorted(found, key=lambda place: (place[0] == self.other, place))]

    def produce(
        self,
        version: int = PRODUCE,
        *,
        partition: int = 0,
        producer: ProducerEpoch | None = None,
        sequence: int | None = None,
        is_transactional: bool = True,
        transactional_id: str | None = "",
    ) -> tuple[str, int]:
        """One record; the error and its offset."""
        sender = producer or self.producer
        first = self.sequences.get((sender, partition), 0) if sequence is None else sequence
        records = encode_stamped([(b"key", b"value", START_MS, ())], ProducerStamp(*sender, first, is_transactional))
        topic = {"name": self.topic, "partition_data": [{"index": partition, "records": records}]}
        if transactional_id == "":
            transactional_id = self.transactional_id if is_transactional else None
        request = {"transactional_id": transactional_id, "acks": -1, "timeout": 5000, "topic_data": [topic]}
        response = self.ask("produce", version, request, lambda response: [self._produced(response).error_code])
        produced = self._produced(response)
        if produced.error_code.name == "none":
            self.sequences[sender, partition] = first + 1
        return produced.error_code.name, produced.base_offset

    def _produced(self, response: Any) -> Any:
        ((partition,),) = [topic.partition_responses for topic in response.responses]
        return partition

    def end(
        self, *, commit: bool, version: int = END, producer: ProducerEpoch | None = None, transactional_id: str = ""
    ) -> tuple[str, int]:
        """EndTxn: the error, and by how much the epoch went up (version 5)."""
        sender = producer or self.producer
        response = self.ask(
            "end_txn",
            version,
            {
                "transactional_id": transactional_id or self.transactional_id,
                "producer_id": sender.producer_id,
                "producer_epoch": sender.epoch,
                "committed": commit,
            },
            lambda response: [response.error_code],
        )
        if version < END or response.error_code.name != "none":
            return response.error_code.name, 0
        self.producer = ProducerEpoch(response.producer_id, response.producer_epoch)
        return "none", self.producer.epoch - sender.epoch

    def add_offsets(self, *, producer: ProducerEpoch | None = None, group: str | None = None) -> str:
        sender = producer or self.producer
        response = self.ask(
            "add_offsets_to_txn",
            ADD_OFFSETS,
            {
                "transactional_id": self.transactional_id,
                "producer_id": sender.producer_id,
                "producer_epoch": sender.epoch,
                "group_id": self.group if group is None else group,
            },
            lambda response: [response.error_code],
        )
        return str(response.error_code.name)

    def commit_offset(
        self,
        offset: int,
        version: int = OFFSET_COMMIT,
        *,
        producer: ProducerEpoch | None = None,
        generation: int = -1,
        member: str = "",
        topic: str = "",
        group: str | None = None,
    ) -> str:
        """TxnOffsetCommit for the first partition."""
        sender = producer or self.producer
        partition = {"partition_index": 0, "committed_offset": offset, "committed_metadata": "m"}
        response = self.ask(
            "txn_offset_commit",
            version,
            {
                "transactional_id": self.transactional_id,
                "group_id": self.group if group is None else group,
                "producer_id": sender.producer_id,
                "producer_epoch": sender.epoch,
                "generation_id": generation,
                "member_id": member,
                "topics": [{"name": topic or self.topic, "partitions": [partition]}],
            },
            lambda response: [response.topics[0].partitions[0].error_code],
        )
        return str(response.topics[0].partitions[0].error_code.name)

    def fetch_offset(self, *, require_stable: bool) -> tuple[str, int]:
        """OffsetFetch of the first partition; the answer while it is "not stable" is an answer."""
        topics = [{"name": self.topic, "partition_indexes": [0]}]
        request = {"groups": [{"group_id": self.group, "topics": topics}], "require_stable": require_stable}
        group = self.client.ask("offset_fetch", 8, request).groups[0]
        partition = group.topics[0].partitions[0]
        return partition.error_code.name, partition.committed_offset

    def settled_offset(self) -> int:
        """The committed offset once no transaction holds another one."""
        return until(lambda: (found := self.fetch_offset(require_stable=True))[0] == "none" and found, what="it")[1]

    def fetch(self, isolation: int, offset: int = 0, *, wait_ms: int = 0, version: int = 12) -> Any:
        partition = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": 1 << 20}
        partition |= {"current_leader_epoch": -1, "last_fetched_epoch": -1, "log_start_offset": -1}
        request = {
            "replica_id": -1,
            "max_wait": wait_ms,
            "min_bytes": 1,
            "max_bytes": 1 << 20,
            "isolation_level": isolation,
            "session_epoch": -1,
            "topics": [{"topic": self.topic, "partitions": [partition]}],
        }
        ((found,),) = [topic.partitions for topic in self.client.ask("fetch", version, request, lenient=True).responses]
        return found

    def fetched(self, isolation: int, offset: int = 0) -> tuple[int, int, Any, bool]:
        """High watermark, last stable offset, first offsets of the aborted transactions, whether records came."""
        found = self.fetch(isolation, offset)
        assert found.error_code.name == "none"
        aborted = found.aborted_transactions
        places = None if aborted is None else [transaction.first_offset for transaction in aborted]
        return found.high_watermark, found.last_stable_offset, places, bool(found.records)

    def latest(self, isolation: int) -> int:
        partition = {"partition_index": 0, "timestamp": LATEST, "current_leader_epoch": -1}
        topics = [{"name": self.topic, "partitions": [partition]}]
        request = {"replica_id": -1, "isolation_level": isolation, "topics": topics}
        return int(self.client.ask("list_offsets", 8, request, lenient=True).topics[0].partitions[0].offset)

    def settle(self, end: int) -> None:
        """Wait for the markers, up to the offset `end`."""
        until(lambda: self.latest(READ_COMMITTED) == end, what=f"the last stable offset {end}")

    def described(self, transactional_id: str = "") -> Any:
        request = {"transactional_ids": [transactional_id or self.transactional_id]}
        (found,) = self.client.ask("describe_transactions", 0, request).transaction_states
        return found

    def state(self) -> str:
        """As it is listed: the start of a transaction that has none is a time that kio does not read."""
        request = {"state_filters": [], "producer_id_filters": [self.producer.producer_id], "duration_filter": -1}
        (found,) = self.client.ask("list_transactions", 1, request).transaction_states
        assert found.transactional_id == self.transactional_id
        return str(found.transaction_state)

    def await_state(self, wanted: str) -> None:
        until(lambda: self.state() == wanted, what=wanted)


@pytest.fixture
def scene(cluster: Cluster) -> Iterator[Scene]:
    with RawClient(cluster) as client:
        made = Scene(client, create_topic(cluster, fresh("raw-transactions"), 2), fresh("raw-missing"))
        # Kafka makes its internal topics when somebody first asks for a coordinator.
        for key_type, key in enumerate((made.group, made.transactional_id)):
            request = {"key": key, "key_type": key_type}
            made.ask("find_coordinator", 3, request, lambda response: [response.error_code])
        yield made


# -- InitProducerId ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(6))
def test_each_initialisation_has_the_next_epoch(scene: Scene, version: int) -> None:
    assert [scene.init(version) for _ in range(3)] == [("none", False, 0), ("none", True, 1), ("none", True, 2)]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_an_initialisation_that_expects_an_epoch(scene: Scene, version: int) -> None:
    """KIP-360."""
    assert scene.init(version) == ("none", False, 0)
    first = scene.producer
    answers = {
        "right": scene.init(version, expected=first),
        "the last epoch, as of a lost answer": scene.init(version, expected=first),
        "right again": scene.init(version, expected=scene.producer),
        "older than the last": scene.init(version, expected=first),
        "from the future": scene.init(version, expected=scene.producer.moved(7)),
        "another producer": scene.init(version, expected=scene.producer._replace(producer_id=1 << 40)),
        "an epoch without an id": scene.init(version, expected=ProducerEpoch(-1, 3)),
        "an id without an epoch": scene.init(version, expected=scene.producer._replace(epoch=-1)),
        "nothing expected": scene.init(version),
    }
    fenced = "producer_fenced" if version >= 4 else "invalid_producer_epoch"
    assert answers == {
        "right": ("none", True, 1),
        "the last epoch, as of a lost answer": ("none", True, 1),
        "right again": ("none", True, 2),
        "older than the last": (fenced, False, -1),
        "from the future": (fenced, False, -1),
        "another producer": (fenced, False, -1),
        "an epoch without an id": ("invalid_request", False, -1),
        "an id without an epoch": ("invalid_request", False, -1),
        "nothing expected": ("none", True, 3),
    }


def test_expecting_an_epoch_of_an_id_that_was_never_initialised(scene: Scene) -> None:
    assert scene.init(expected=ProducerEpoch(1 << 40, 3))[0] == "none"


def test_an_initialisation_aborts_what_is_open(scene: Scene) -> None:
    scene.init()
    assert scene.produce() == ("none", 0)
    before = scene.producer
    error, is_same, epoch = scene.init()
    scene.settle(2)
    answers = [
        (error, is_same, epoch > before.epoch),
        scene.fetched(READ_COMMITTED),
        scene.produce(producer=before),
        scene.end(commit=True, producer=before),
        scene.end(commit=True, producer=before, version=OLD_END),
        scene.end(commit=True, producer=before, version=1),
        scene.produce(),
    ]
    assert answers == [
        ("none", True, True),
        (2, 2, [0], True),
        ("invalid_producer_epoch", -1),
        ("producer_fenced", 0),
        ("producer_fenced", 0),
        ("invalid_producer_epoch", 0),
        ("none", 2),
    ]


# -- partitions and records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, 3])
def test_partitions_are_added_to_a_transaction(scene: Scene, version: int) -> None:
    scene.init()
    answers = {
        "never initialised": scene.add(0, version=version, transactional_id=fresh("never")),
        "an older epoch": scene.add(0, version=version, producer=scene.producer.moved(-1)),
        "a later epoch": scene.add(0, version=version, producer=scene.producer.moved(1)),
        "another producer": scene.add(0, version=version, producer=ProducerEpoch(1 << 40, 0)),
        "an unknown topic": scene.add(0, 1, version=version, topics=[scene.topic, scene.other]),
        "an unknown partition": scene.add(0, 7, version=version),
        "both": scene.add(0, 1, version=version),
        "again": scene.add(0, version=version),
    }
    fenced = "producer_fenced" if version >= 2 else "invalid_producer_epoch"
    unknown = "unknown_topic_or_partition"
    assert answers == {
        "never initialised": ["invalid_producer_id_mapping"],
        "an older epoch": [fenced],
        "a later epoch": [fenced],
        "another producer": ["invalid_producer_id_mapping"],
        "an unknown topic": ["operation_not_attempted", "operation_not_attempted", unknown, unknown],
        "an unknown partition": ["operation_not_attempted", unknown],
        "both": ["none", "none"],
        "again": ["none"],
    }
    assert scene.state() == "Ongoing"


def test_records_of_a_partition_that_was_not_added(scene: Scene) -> None:
    scene.init()
    answers = {
        "not added": scene.produce(OLD_PRODUCE),
        "still empty": scene.state(),
        "added": scene.add(0),
        "then": scene.produce(OLD_PRODUCE),
        "the other partition": scene.produce(OLD_PRODUCE, partition=1),
        "the other partition, by a newer client": scene.produce(partition=1),
        "the end": scene.end(commit=True, version=OLD_END),
    }
    assert answers == {
        "not added": ("transaction_abortable", -1),
        "still empty": "Empty",
        "added": ["none"],
        "then": ("none", 0),
        "the other partition": ("transaction_abortable", -1),
        "the other partition, by a newer client": ("none", 0),
        "the end": ("none", 0),
    }


def test_records_that_are_not_as_their_transaction(scene: Scene) -> None:
    scene.init()
    answers = {
        "never initialised": scene.produce(producer=ProducerEpoch(1 << 40, 0), transactional_id=fresh("never")),
        "another producer": scene.produce(producer=ProducerEpoch(1 << 40, 0)),
        "an older epoch": scene.produce(producer=scene.producer.moved(-1)),
        "a later epoch": scene.produce(producer=scene.producer.moved(1)),
        "a later sequence": scene.produce(sequence=5),
        "first": scene.produce(),
        "first again": scene.produce(sequence=0),
        "a gap": scene.produce(sequence=7),
        "no transactional id": scene.produce(transactional_id=None),
        "of no transaction": scene.produce(is_transactional=False, sequence=1),
        "of no transaction, with an id": scene.produce(
            is_transactional=False, sequence=1, transactional_id=scene.transactional_id
        ),
    }
    assert answers == {
        "never initialised": ("invalid_producer_id_mapping", -1),
        "another producer": ("invalid_producer_id_mapping", -1),
        "an older epoch": ("invalid_producer_epoch", -1),
        "a later epoch": ("invalid_producer_epoch", -1),
        "a later sequence": ("out_of_order_sequence_number", -1),
        "first": ("none", 0),
        "first again": ("none", 0),
        "a gap": ("out_of_order_sequence_number", -1),
        "no transactional id": ("transactional_id_authorization_failed", -1),
        "of no transaction": ("invalid_txn_state", -1),
        "of no transaction, with an id": ("invalid_txn_state", -1),
    }


def test_an_older_client_begins_and_ends_without_a_new_epoch(scene: Scene) -> None:
    scene.init()
    answers = []
    for turn in range(2):
        answers += [scene.add(0), scene.produce(OLD_PRODUCE), scene.end(commit=turn == 0, version=OLD_END)]
        scene.settle(2 * turn + 2)
    assert answers == [["none"], ("none", 0), ("none", 0), ["none"], ("none", 2), ("none", 0)]
    assert scene.fetched(READ_COMMITTED) == (4, 4, [2], True)


# -- EndTxn ------------------------------------------------------------------------------------------------------------


def test_an_end_is_a_new_epoch_and_may_be_asked_for_again(scene: Scene) -> None:
    """KIP-890."""
    scene.init()
    begun = scene.producer
    answers: dict[str, object] = {"records": scene.produce(), "commit": scene.end(commit=True)}
    scene.await_state("CompleteCommit")
    ended = scene.producer
    answers["the commit again, with the old epoch"] = scene.end(commit=True, producer=begun)
    answers["an abort, with the old epoch"] = scene.end(commit=False, producer=begun)
    answers["a commit of nothing"] = scene.end(commit=True, producer=ended)
    scene.producer = ended
    answers["an abort of nothing"] = scene.end(commit=False, producer=ended)
    answers["a later epoch"] = scene.end(commit=True, producer=scene.producer.moved(5))
    answers["an older epoch"] = scene.end(commit=True, producer=begun)
    answers["another producer"] = scene.end(commit=True, producer=ProducerEpoch(1 << 40, 0))
    answers["never initialised"] = scene.end(commit=True, transactional_id=fresh("never"))
    answers["records with the old epoch"] = scene.produce(producer=begun, sequence=1)
    answers["more records"] = scene.produce()
    answers["the abort"] = scene.end(commit=False)
    scene.await_state("CompleteAbort")
    answers["an abort after the abort"] = scene.end(commit=False)
    answers["a commit after the abort"] = scene.end(commit=True)
    answers["epoch"] = scene.producer.epoch
    assert answers == {
        "records": ("none", 0),
        "commit": ("none", 1),
        "the commit again, with the old epoch": ("none", 1),
        "an abort, with the old epoch": ("invalid_txn_state", 0),
        "a commit of nothing": ("invalid_txn_state", 0),
        "an abort of nothing": ("none", 1),
        "a later epoch": ("producer_fenced", 0),
        "an older epoch": ("producer_fenced", 0),
        "another producer": ("invalid_producer_id_mapping", 0),
        "never initialised": ("invalid_producer_id_mapping", 0),
        "records with the old epoch": ("invalid_producer_epoch", -1),
        "more records": ("none", 2),
        "the abort": ("none", 1),
        "an abort after the abort": ("none", 1),
        "a commit after the abort": ("invalid_txn_state", 0),
        "epoch": 4,
    }


def test_an_older_clients_end_may_be_asked_for_again_but_not_changed(scene: Scene) -> None:
    scene.init()
    answers: dict[str, object] = {
        "nothing begun": scene.end(commit=True, version=OLD_END),
        "nothing begun, abort": scene.end(commit=False, version=OLD_END),
        "add": scene.add(0),
        "commit": scene.end(commit=True, version=OLD_END),
    }
    scene.await_state("CompleteCommit")
    answers["commit again"] = scene.end(commit=True, version=OLD_END)
    answers["abort after it"] = scene.end(commit=False, version=OLD_END)
    answers["add again"] = scene.add(0)
    answers["abort"] = scene.end(commit=False, version=OLD_END)
    scene.await_state("CompleteAbort")
    answers["abort again"] = scene.end(commit=False, version=OLD_END)
    answers["commit after it"] = scene.end(commit=True, version=OLD_END)
    assert answers == {
        "nothing begun": ("invalid_txn_state", 0),
        "nothing begun, abort": ("invalid_txn_state", 0),
        "add": ["none"],
        "commit": ("none", 0),
        "commit again": ("none", 0),
        "abort after it": ("invalid_txn_state", 0),
        "add again": ["none"],
        "abort": ("none", 0),
        "abort again": ("none", 0),
        "commit after it": ("invalid_txn_state", 0),
    }


# -- offsets -----------------------------------------------------------------------------------------------------------


def test_offsets_in_a_transaction_are_unstable_until_its_end(scene: Scene) -> None:
    """KIP-447."""
    scene.init()
    answers: list[object] = [scene.commit_offset(5), scene.fetch_offset(require_stable=True)]
    answers += [scene.fetch_offset(require_stable=False), scene.end(commit=True), scene.settled_offset()]
    answers += [scene.commit_offset(9), scene.fetch_offset(require_stable=True)]
    answers += [scene.fetch_offset(require_stable=False), scene.end(commit=False), scene.settled_offset()]
    assert answers == [
        "none",
        ("unstable_offset_commit", -1),
        ("none", -1),
        ("none", 1),
        5,
        "none",
        ("unstable_offset_commit", -1),
        ("none", 5),
        ("none", 1),
        5,
    ]


def test_offsets_of_an_older_client_need_their_group_added(scene: Scene) -> None:
    scene.init()
    answers = {
        "not added": scene.commit_offset(3, OLD_OFFSET_COMMIT),
        "added, by an older epoch": scene.add_offsets(producer=scene.producer.moved(-1)),
        "added, by another producer": scene.add_offsets(producer=ProducerEpoch(1 << 40, 0)),
        "added to no group": scene.add_offsets(group=""),
        "added": scene.add_offsets(),
        "then": scene.commit_offset(3, OLD_OFFSET_COMMIT),
        "the oldest version": scene.commit_offset(4, 0),
        "the end": scene.end(commit=True, version=OLD_END),
        "at last": scene.settled_offset(),
    }
    assert answers == {
        "not added": "transaction_abortable",
        "added, by an older epoch": "producer_fenced",
        "added, by another producer": "invalid_producer_id_mapping",
        # Kafka looks at the name of a group when it gets offsets, and not before.
        "added to no group": "none",
        "added": "none",
        "then": "none",
        "the oldest version": "none",
        "the end": ("none", 0),
        "at last": 4,
    }


@pytest.mark.parametrize("version", [OLD_OFFSET_COMMIT, OFFSET_COMMIT])
def test_offsets_that_a_group_refuses(scene: Scene, version: int) -> None:
    scene.init()
    scene.add_offsets()
    cases: dict[str, dict[str, Any]] = {
        "a generation": {"generation": 3},
        "a member": {"member": "nobody"},
        "a member of a generation": {"member": "nobody", "generation": 3},
        "an older epoch": {"producer": scene.producer.moved(-1)},
        "a later epoch": {"producer": scene.producer.moved(1)},
        "another producer": {"producer": ProducerEpoch(1 << 40, 0)},
        "an unknown topic": {"topic": scene.other},
        "no group": {"group": ""},
    }
    answers = {
        title: scene.commit_offset(3, version, **{"group": fresh("new")} | case) for title, case in cases.items()
    }
    assert answers == {
        "a generation": "illegal_generation",
        "a member": "none",
        "a member of a generation": "illegal_generation",
        "an older epoch": "invalid_producer_epoch",
        "a later epoch": "invalid_producer_epoch",
        "another producer": "invalid_producer_id_mapping",
        "an unknown topic": "unknown_topic_or_partition",
        "no group": "invalid_group_id",
    }


@pytest.mark.parametrize("version", [OLD_OFFSET_COMMIT, OFFSET_COMMIT])
def test_members_that_a_group_with_offsets_does_not_know(scene: Scene, version: int) -> None:
    scene.init()
    assert [scene.commit_offset(3), scene.end(commit=True), scene.settled_offset()] == ["none", ("none", 1), 3]
    scene.add_offsets()
    answers = [
        scene.commit_offset(4, version, generation=3),
        scene.commit_offset(4, version, generation=3, member="nobody"),
        scene.commit_offset(4, version, member="nobody"),
        scene.commit_offset(4, version),
    ]
    assert answers == ["unknown_member_id", "unknown_member_id", "none", "none"]


# -- what readers see --------------------------------------------------------------------------------------------------


def test_readers_see_up_to_the_last_stable_offset(scene: Scene) -> None:
    scene.init()
    scene.produce()
    answers = [scene.fetched(isolation) for isolation in (READ_UNCOMMITTED, READ_COMMITTED)]
    answers.append((scene.latest(READ_UNCOMMITTED), scene.latest(READ_COMMITTED)))
    scene.end(commit=False)
    scene.settle(2)
    scene.produce()
    scene.end(commit=True)
    scene.settle(4)
    scene.produce()
    answers += [
        scene.fetched(READ_UNCOMMITTED),
        scene.fetched(READ_COMMITTED),
        scene.fetched(READ_COMMITTED, 1),
        scene.fetched(READ_COMMITTED, 2),
        scene.fetched(READ_COMMITTED, 4),
        (scene.latest(READ_UNCOMMITTED), scene.latest(READ_COMMITTED)),
    ]
    assert answers == [
        (1, 0, None, True),
        (1, 0, [], False),
        (1, 0),
        (5, 4, None, True),
        (5, 4, [0], True),
        (5, 4, [0], True),
        (5, 4, [], True),
        (5, 4, [], False),
        (5, 4),
    ]


def test_a_fetch_at_the_last_stable_offset_waits_and_is_woken_by_the_end(cluster: Cluster, scene: Scene) -> None:
    scene.init()
    scene.produce()
    began = time.monotonic()
    assert not scene.fetch(READ_COMMITTED, wait_ms=500).records
    assert time.monotonic() - began > 0.4
    fetched: list[Any] = []
    with RawClient(cluster) as client:
        reader = Scene(client, scene.topic, scene.other)
        thread = threading.Thread(
            target=lambda: fetched.append(reader.fetch(READ_COMMITTED, wait_ms=20_000)), name="reader"
        )
        thread.start()
        time.sleep(1)  # until it waits
        scene.end(commit=True)
        began = time.monotonic()
        thread.join(PATIENCE_S)
        assert time.monotonic() - began < 10
    assert [(found.last_stable_offset, bool(found.records)) for found in fetched] == [(2, True)]


# -- keeping house (KIP-664) -------------------------------------------------------------------------------------------


def test_transactions_are_described_and_listed(scene: Scene) -> None:
    def described() -> tuple[Any, ...]:
        found = scene.described()
        topics = [(topic.topic == scene.topic, sorted(topic.partitions)) for topic in found.topics]
        return found.error_code.name, found.transaction_state, topics, found.producer_epoch - scene.producer.epoch

    def listed(version: int = 1, **filters: Any) -> list[str]:
        fields = {"state_filters": [], "producer_id_filters": [], "duration_filter": -1, **filters}
        response = scene.client.ask("list_transactions", version, fields, lenient=True)
        assert response.error_code.name == "none"
        states = response.transaction_states
        found = [state.transaction_state for state in states if state.transactional_id == scene.transactional_id]
        return [*found, *response.unknown_state_filters]

    answers: dict[str, object] = {
        "never initialised": [scene.described().error_code.name, scene.described().transaction_state],
        "never listed": listed(),
        "init": scene.init(),
        "empty": listed(),
        "empty, older than an hour": listed(duration_filter=3_600_000),
        "records": [scene.produce(), scene.produce(partition=1)],
        "ongoing": described(),
        "by state": listed(state_filters=["Ongoing"]),
        "by another state": listed(state_filters=["Empty"]),
        "by a state that is none": listed(state_filters=["Sleeping", "Ongoing"]),
        "by producer": listed(0, producer_id_filters=[scene.producer.producer_id]),
        "by another producer": listed(producer_id_filters=[1 << 40]),
        "older than no time": listed(duration_filter=0),
        "older than an hour": listed(duration_filter=3_600_000),
        "commit": scene.end(commit=True),
    }
    scene.await_state("CompleteCommit")
    answers["complete, of any age"] = listed(duration_filter=0)
    answers["complete, listed"] = listed()
    assert answers == {
        "never initialised": ["transactional_id_not_found", ""],
        "never listed": [],
        "init": ("none", False, 0),
        "empty": ["Empty"],
        # One that has not begun has, for Kafka, begun before all time.
        "empty, older than an hour": ["Empty"],
        "records": [("none", 0), ("none", 0)],
        "ongoing": ("none", "Ongoing", [(True, [0, 1])], 0),
        "by state": ["Ongoing"],
        "by another state": [],
        "by a state that is none": ["Ongoing", "Sleeping"],
        "by producer": ["Ongoing"],
        "by another producer": [],
        "older than no time": ["Ongoing"],
        "older than an hour": [],
        "commit": ("none", 1),
        "complete, of any age": ["CompleteCommit"],
        "complete, listed": ["CompleteCommit"],
    }


def test_producers_of_a_partition_are_described(scene: Scene) -> None:
    def producers() -> list[tuple[bool, int, int, bool, int]]:
        topics = [{"name": scene.topic, "partition_indexes": [0]}]
        ((part,),) = [
            topic.partitions for topic in scene.client.ask("describe_producers", 0, {"topics": topics}).topics
        ]
        assert part.error_code.name == "none"
        return [
            (
                found.producer_id == scene.producer.producer_id,
                found.producer_epoch - scene.producer.epoch,
                found.last_sequence,
                found.coordinator_epoch >= 0,
                found.current_txn_start_offset,
            )
            for found in part.active_producers
        ]

    scene.init()
    answers = [producers(), scene.produce(), producers(), scene.end(commit=True)]
    scene.settle(2)
    answers += [producers(), scene.produce(), producers()]
    assert answers == [
        [],
        ("none", 0),
        # Kafka's coordinator epoch is none before its first marker.
        [(True, 0, 0, False, 0)],
        ("none", 1),
        [(True, 0, -1, True, -1)],
        ("none", 2),
        [(True, 0, 0, True, 2)],
    ]


def test_producers_of_a_partition_that_is_not_there(scene: Scene) -> None:
    topics = [{"name": scene.other, "partition_indexes": [0]}, {"name": scene.topic, "partition_indexes": [9]}]
    response = scene.client.ask("describe_producers", 0, {"topics": topics})
    codes = [part.error_code.name for topic in response.topics for part in topic.partitions]
    assert codes == ["unknown_topic_or_partition"] * 2


def test_transactional_ids_that_cannot_be(scene: Scene) -> None:
    coordinator = scene.client.ask("find_coordinator", 3, {"key": "", "key_type": 1})
    answers = [scene.described(fresh("never")).error_code.name, coordinator.error_code.name]
    (empty,) = scene.client.ask("describe_transactions", 0, {"transactional_ids": [""]}).transaction_states
    assert [*answers, empty.error_code.name] == ["transactional_id_not_found", "none", "invalid_request"]


def test_the_features_of_transactions_are_told(scene: Scene) -> None:
    response = scene.client.ask("api_versions", 4, {"client_software_name": "raw", "client_software_version": "1"})
    supported = {found.name: (found.min_version, found.max_version) for found in response.supported_features}
    finalized = {
        found.name: (found.min_version_level, found.max_version_level) for found in response.finalized_features
    }
    assert (supported["transaction.version"], finalized["transaction.version"]) == ((0, 2), (2, 2))
