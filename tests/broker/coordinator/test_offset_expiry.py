"""Offsets go when nobody has used their group for long enough, and not before (KIP-211)."""

import asyncio
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcore.broker.broker import Broker
from streamcore.broker.config import BrokerConfig
from streamcore.broker.coordinator.offset_expiry import Unused, subscribed_topics
from streamcore.broker.coordinator.offset_records import OffsetValue
from streamcore.broker.metadata_store import LocalMetadataStore
from streamcore.broker.node import Node, NodeConfig
from streamcore.clock import ManualClock
from streamcore.log.directory import LogDirectory
from streamcore.transport.base import Committed
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP
from tests.broker.coordinator.group_support import DrivenGroups
from tests.faults.faulty_disk import FaultyDisk
from tests.transport.virtual_loop import run_virtually

NOW_MS = 1_700_000_000_000
A, B = TP("a", 0), TP("b", 0)
MINUTE_MS = 60_000


def subscription(*topics: str, version: int = 1) -> bytes:
    names = b"".join(struct.pack(">h", len(name.encode())) + name.encode() for name in topics)
    return struct.pack(">hi", version, len(topics)) + names + struct.pack(">i", -1)


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(0, 3))
def test_a_subscription_is_read_in_every_version(topics: list[str], version: int) -> None:
    assert subscribed_topics(subscription(*topics, version=version)) == topics


@given(st.binary(max_size=60))
def test_other_bytes_are_no_subscription(data: bytes) -> None:
    found = subscribed_topics(data)
    assert found is None or len(found) <= len(data)


def test_an_unused_group_counts_from_its_last_member_or_else_from_its_commits() -> None:
    assert Unused(since_ms=5).is_expired("a", 100, 5)
    assert not Unused(since_ms=6).is_expired("a", 0, 5)
    assert Unused().is_expired("a", 5, 5)
    assert not Unused().is_expired("a", 6, 5)
    assert not Unused(subscribed=frozenset({"a"})).is_expired("a", 0, 5)


def test_a_group_in_use_keeps_what_its_members_subscribe_to() -> None:
    driven = DrivenGroups()
    assert driven.groups.unused("nobody's") == Unused()
    ticket = driven.join(protocols=(("range", subscription("a")),))
    member_id = driven.joined(ticket).member_id
    assert driven.groups.unused("g") is None, "in a rebalance, nothing can be told"
    driven.sync(member_id, 1, assignments={member_id: b""})
    assert driven.groups.unused("g") == Unused(subscribed=frozenset({"a"}))
    other = driven.join(protocols=(("range", b"?"),), group_id="odd")
    member_id = driven.joined(other).member_id
    driven.sync(member_id, 1, group_id="odd", assignments={member_id: b""})
    assert driven.groups.unused("odd") is None
    connect = driven.join(protocol_type="connect", protocols=(("x", subscription("a")),), group_id="c")
    member_id = driven.joined(connect).member_id
    driven.sync(member_id, 1, group_id="c", protocol_type="connect", protocol_name="x", assignments={member_id: b""})
    assert driven.groups.unused("c") is None


def broker_on(disk: FaultyDisk, clock: ManualClock) -> tuple[Node, Broker]:
    node = Node(lambda: LogDirectory.open("/data", disk=disk, clock=clock), NodeConfig(off_loop=False), clock)
    config = BrokerConfig.parse({"offsets.retention.minutes": 10, "offsets.retention.check.interval.ms": 1000})
    disk.make_directory("/data")
    return node, Broker(node, LocalMetadataStore(disk, "/data"), config, clock)


async def join(broker: Broker, group: str, *topics: str) -> str:
    protocols = [("range", subscription(*topics))]
    joined = await broker.coordinator.join(group, "", None, "c", "/1", 10_000, 10_000, "consumer", protocols, False)
    await broker.coordinator.sync(
        group, joined.generation_id, joined.member_id, None, "consumer", "range", {joined.member_id: b"x"}
    )
    return joined.member_id


def test_offsets_without_a_user_go_in_time_and_stay_away_after_a_restart() -> None:
    async def run() -> None:
        disk, clock = FaultyDisk(), ManualClock(NOW_MS)
        node, broker = broker_on(disk, clock)
        await node.start()
        await broker.start()
        node.create_topic("a", 1, {})
        node.create_topic("b", 1, {})
        await node.commit("standalone", {A: OffsetValue(1)})
        await node.commit("used", {A: OffsetValue(1), B: OffsetValue(2)})
        await node.commit("left", {A: OffsetValue(1)})
        await join(broker, "used", "a")
        member_id = await join(broker, "left", "a")
        clock.advance(9 * MINUTE_MS)
        broker.coordinator.leave("left", [(member_id, None)])
        await broker.coordinator.flush()
        await node.commit("standalone", {B: OffsetValue(3)})
        for _ in range(3):
            await asyncio.sleep(1)
            broker.coordinator.heartbeat("used", 1, "", None)
        assert node.groups() == ["left", "standalone", "used"]
        clock.advance(MINUTE_MS)
        await asyncio.sleep(2)
        assert list(node.committed("standalone", None)) == [B]
        assert list(node.committed("used", None)) == [A], "b is not subscribed to any more"
        assert list(node.committed("left", None)) == [A], "counts from when its last member left"
        clock.advance(9 * MINUTE_MS)
        await broker.stop()
        await node.stop()
        node, broker = broker_on(disk, clock)
        await node.start()
        await broker.start()
        await asyncio.sleep(2)
        assert node.groups() == ["used"]
        await broker.stop()
        await node.stop()
        node, broker = broker_on(disk, clock)
        await node.start()
        assert node.groups() == ["used"]
        await node.stop()

    run_virtually(run())


def test_what_this_process_reads_itself_does_not_expire(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock(NOW_MS)
        transport = EmbeddedTransport(str(tmp_path), clock=clock)
        await transport.start()
        await transport.create_topic("a", partitions=1)
        await transport.commit("app", {A: Committed(4)})
        await transport.node.commit("other", {A: OffsetValue(4)})
        clock.advance(MINUTE_MS)
        assert await transport.node.expire_offsets(MINUTE_MS, lambda group: Unused()) == 1
        assert await transport.groups() == ["app"]
        await transport.stop()

    asyncio.run(run())


@pytest.mark.parametrize("name", ["offsets.retention.minutes", "offsets.retention.check.interval.ms"])
def test_retention_is_at_least_one(name: str) -> None:
    from streamcore.errors import InvalidConfigError

    with pytest.raises(InvalidConfigError, match="within 1"):
        BrokerConfig.parse({name: "0"})
