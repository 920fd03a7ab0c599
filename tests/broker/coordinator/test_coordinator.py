"""The coordinator in an event loop whose time passes by itself."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from streamcore.broker.coordinator.consumer_groups.assignment import NOTHING
from streamcore.broker.coordinator.consumer_groups.messages import HeartbeatRequest
from streamcore.broker.coordinator.consumer_groups.records import decode_change
from streamcore.broker.coordinator.coordinator import GroupCoordinator
from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError, JoinResult, SyncResult
from streamcore.broker.coordinator.group_records import decode_group_key
from streamcore.clock import ManualClock
from streamcore.errors import LogOfflineError, RecordTooLargeError, StreamcoreError
from streamcore.protocol.consumer_protocol import Subscription, encode_subscription
from streamcore.types import Headers, OutRecord
from tests.transport.virtual_loop import run_virtually

E = GroupError


class Stored(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Log:
    """Takes records, after a while or not at all."""

    def __init__(self) -> None:
        self.records: list[Stored] = []
        self.calls = 0
        self.takes_s = 0.0
        self.error: StreamcoreError | None = None
        self.refused_group: str | None = None
        self.refused_consumer_group: str | None = None

    async def persist(self, records: Sequence[OutRecord]) -> None:
        self.calls += 1
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        if self.refused_consumer_group in [
            change.group_id for key, value, _, _ in records if (change := decode_change(key or b"", value)) is not None
        ]:
            raise RecordTooLargeError("too large")
        if self.refused_group and self.refused_group in [decode_group_key(key or b"") for key, _, _, _ in records]:
            raise RecordTooLargeError("too large")
        for key, value, timestamp_ms, _ in records:
            self.records.append(Stored(len(self.records), timestamp_ms, key, value))


async def started(log: Log | None = None, **settings: int) -> GroupCoordinator:
    config = GroupConfig(**{"group_initial_rebalance_delay_ms": 0, **settings})
    coordinator = GroupCoordinator(ManualClock(), config, persist=log.persist if log else None)
    if log is not None:
        coordinator.reload(log.records)
    await coordinator.start()
    return coordinator


async def join(coordinator: GroupCoordinator, member_id: str = "", group_id: str = "g", **options: str) -> JoinResult:
    return await coordinator.join(
        group_id, member_id, options.get("instance"), "c", "/h", 10_000, 60_000, "consumer", [("range", b"t")], False
    )


async def sync(
    coordinator: GroupCoordinator, joined: JoinResult, group_id: str = "g", assignments: dict[str, bytes] | None = None
) -> SyncResult:
    return await coordinator.sync(
        group_id, joined.generation_id, joined.member_id, None, "consumer", "range", assignments or {}
    )


def test_two_members_share_a_group() -> None:
    async def run() -> None:
        coordinator = await started(group_initial_rebalance_delay_ms=3000)
        one, two = await asyncio.gather(join(coordinator), join(coordinator))
        leader, follower = (one, two) if one.members else (two, one)
        given = {leader.member_id: b"0", follower.member_id: b"1"}
        got = await asyncio.gather(sync(coordinator, follower), sync(coordinator, leader, assignments=given))
        assert [result.assignment for result in got] == [b"1", b"0"]
        assert coordinator.heartbeat("g", 1, follower.member_id, None) == E.NONE
        assert coordinator.check_commit("g", 1, follower.member_id, None) == E.NONE
        assert coordinator.leave("g", [(follower.member_id, None)]).members[0].error_code == E.NONE
        assert coordinator.heartbeat("g", 1, leader.member_id, None) == E.REBALANCE_IN_PROGRESS
        await coordinator.stop()

    run_virtually(run())


def test_a_member_that_is_silent_dies_by_the_loops_time() -> None:
    async def run() -> None:
        coordinator = await started()
        joined = await join(coordinator)
        await sync(coordinator, joined)
        await asyncio.sleep(9.9)
        assert not coordinator.is_empty("g")
        await asyncio.sleep(0.2)
        assert coordinator.is_empty("g")
        await coordinator.stop()

    run_virtually(run())


def test_a_join_whose_client_hung_up_is_no_obstacle() -> None:
    async def run() -> None:
        coordinator = await started()
        first = await join(coordinator)
        await sync(coordinator, first)
        gone = asyncio.create_task(join(coordinator))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        again = await join(coordinator, first.member_id)
        assert len(again.members) == 2
        assert not coordinator._joins
        assert (await asyncio.wait_for(sync(coordinator, again), 100)).error_code == E.NONE
        await coordinator.stop()

    run_virtually(run())


def test_a_sync_returns_when_the_assignment_is_stored() -> None:
    async def run() -> None:
        log = Log()
        log.takes_s = 0.5
        coordinator = await started(log)
        joined = await join(coordinator)
        before = asyncio.get_running_loop().time()
        assert (await sync(coordinator, joined, assignments={joined.member_id: b"a"})).assignment == b"a"
        assert asyncio.get_running_loop().time() - before >= 0.5
        assert len(log.records) == 1
        await coordinator.stop()

    run_virtually(run())


def test_a_restart_brings_stable_groups_back() -> None:
    async def run() -> None:
        log = Log()
        coordinator = await started(log)
        joined = await join(coordinator)
        await sync(coordinator, joined, assignments={joined.member_id: b"a"})
        other = await join(coordinator, group_id="other")
        await sync(coordinator, other, "other")
        coordinator.leave("other", [(other.member_id, None)])
        assert coordinator.delete("other") == E.NONE
        await coordinator.stop()
        coordinator = await started(log)
        assert [group.group_id for group in coordinator.list_groups()] == ["g"]
        assert coordinator.heartbeat("g", 1, joined.member_id, None) == E.NONE
        assert (await sync(coordinator, joined)).assignment == b"a"
        await asyncio.sleep(11)
        assert coordinator.is_empty("g")
        await coordinator.stop()

    run_virtually(run())


def test_writes_that_come_up_during_a_write_go_together() -> None:
    async def run() -> None:
        log = Log()
        log.takes_s = 0.5
        coordinator = await started(log)
        names = [f"g{number}" for number in range(20)]
        joined = await asyncio.gather(*(join(coordinator, group_id=name) for name in names))
        await asyncio.gather(*(sync(coordinator, *pair) for pair in zip(joined, names, strict=True)))
        assert len(log.records) == 20
        assert log.calls <= 2
        await coordinator.stop()

    run_virtually(run())


@pytest.mark.parametrize("error", [LogOfflineError("the disk is full"), None])
def test_a_log_that_fails_or_hangs_makes_members_try_again(error: StreamcoreError | None) -> None:
    async def run() -> None:
        log = Log()
        log.error, log.takes_s = error, 0.0 if error else 1000.0
        coordinator = await started(log)
        joined = await join(coordinator)
        assert (await sync(coordinator, joined)).error_code == E.COORDINATOR_NOT_AVAILABLE
        log.error, log.takes_s = None, 0.0
        again = await join(coordinator, joined.member_id)
        assert (await sync(coordinator, again)).error_code == E.NONE
        await coordinator.stop()

    run_virtually(run())


def test_a_group_that_is_too_large_for_the_log_does_not_harm_another() -> None:
    async def run() -> None:
        log = Log()
        log.refused_group = "large"
        coordinator = await started(log)
        names = ["large", "small"]
        joined = [await join(coordinator, group_id=name) for name in names]
        synced = await asyncio.gather(*(sync(coordinator, *pair) for pair in zip(joined, names, strict=True)))
        assert [result.error_code for result in synced] == [E.UNKNOWN_SERVER_ERROR, E.NONE]
        await coordinator.stop()

    run_virtually(run())


def heartbeat(member_id: str, epoch: int, group_id: str = "g") -> HeartbeatRequest:
    return HeartbeatRequest(
        group_id=group_id,
        member_id=member_id,
        member_epoch=epoch,
        client_id="c",
        client_host="/h",
        rebalance_timeout_ms=60_000,
        topic_names=("t",),
        owned=NOTHING,
    )


def test_a_heartbeat_returns_when_what_it_changed_is_stored_and_at_once_otherwise() -> None:
    async def run() -> None:
        log = Log()
        log.takes_s = 0.5
        coordinator = await started(log)
        loop = asyncio.get_running_loop()
        before = loop.time()
        joined = await asyncio.gather(*(coordinator.consumer_heartbeat(heartbeat(name, 0)) for name in "abc"))
        assert [result.error_code for result in joined] == [E.NONE] * 3
        assert 0.5 <= loop.time() - before < 1.1
        assert log.calls <= 2, "what came up meanwhile went together"
        before = loop.time()
        assert (await coordinator.consumer_heartbeat(heartbeat("c", 3))).error_code == E.NONE
        assert loop.time() == before
        await coordinator.stop()
        coordinator = await started(log)
        assert len(coordinator.describe_consumer("g").members) == 3
        assert (await coordinator.consumer_heartbeat(heartbeat("c", 3))).error_code == E.NONE
        await asyncio.sleep(46)
        assert coordinator.is_empty("g")
        await coordinator.stop()

    run_virtually(run())


@pytest.mark.parametrize("error", [LogOfflineError("the disk is full"), None])
def test_while_the_log_fails_no_more_is_decided_and_nothing_is_lost(error: StreamcoreError | None) -> None:
    async def run() -> None:
        log = Log()
        coordinator = await started(log)
        assert (await coordinator.consumer_heartbeat(heartbeat("a", 0))).error_code == E.NONE
        log.error, log.takes_s = error, 0.0 if error else 1000.0
        assert (await coordinator.consumer_heartbeat(heartbeat("b", 0))).error_code == E.COORDINATOR_NOT_AVAILABLE
        for name in ("a", "c"):
            result = await coordinator.consumer_heartbeat(heartbeat(name, 1 if name == "a" else 0))
            assert result.error_code == E.COORDINATOR_NOT_AVAILABLE
        assert [member.member_id for member in coordinator.describe_consumer("g").members] == ["a", "b"]
        log.error, log.takes_s = None, 0.0
        assert (await coordinator.consumer_heartbeat(heartbeat("b", 2))).error_code == E.NONE
        before = coordinator.describe_consumer("g")
        await coordinator.stop()
        coordinator = await started(log)
        assert coordinator.describe_consumer("g") == before
        await coordinator.stop()

    run_virtually(run())


def test_a_member_that_is_too_large_for_the_log_does_not_harm_another() -> None:
    async def run() -> None:
        log = Log()
        log.refused_consumer_group = "large"
        coordinator = await started(log)
        await asyncio.gather(*(coordinator.consumer_heartbeat(heartbeat("a", 0, name)) for name in ("large", "small")))
        await coordinator.stop()
        coordinator = await started(log)
        assert [group.group_id for group in coordinator.list_groups()] == ["small"]
        await coordinator.stop()

    run_virtually(run())


def test_a_classic_members_join_to_a_consumer_group_waits_for_the_log_too() -> None:
    async def run() -> None:
        log = Log()
        coordinator = await started(log)
        await coordinator.consumer_heartbeat(heartbeat("a", 0))
        metadata = encode_subscription(Subscription(("t",)))
        log.error = LogOfflineError("the disk is full")
        fields = ("g", "old", None, "c", "/h", 10_000, 60_000, "consumer", [("range", metadata)], False)
        assert (await coordinator.join(*fields)).error_code == E.COORDINATOR_NOT_AVAILABLE
        log.error = None
        assert (await coordinator.consumer_heartbeat(heartbeat("a", 1))).error_code == E.NONE
        assert (await coordinator.join(*fields)).error_code == E.NONE
        await coordinator.stop()

    run_virtually(run())


def test_before_the_start_and_after_the_stop_every_request_is_sent_away() -> None:
    async def run() -> None:
        coordinator = GroupCoordinator(ManualClock())
        for error in (E.COORDINATOR_LOAD_IN_PROGRESS, E.COORDINATOR_NOT_AVAILABLE):
            joined = await join(coordinator)
            assert joined.error_code == error
            assert (await sync(coordinator, joined)).error_code == error
            assert coordinator.heartbeat("g", 1, "m", None) == error
            assert coordinator.leave("g", []).error_code == error
            assert coordinator.check_commit("g", -1, "", None) == error
            assert coordinator.describe("g").error_code == error
            assert coordinator.delete("g") == error
            assert coordinator.refusal == error
            await coordinator.start()
            assert coordinator.refusal == E.NONE
            await coordinator.stop()

    run_virtually(run())


def test_a_stop_answers_everybody_who_waits_and_stores_what_is_due() -> None:
    async def run() -> None:
        log = Log()
        log.takes_s = 0.5
        coordinator = await started(log)
        joined = await join(coordinator)
        syncing = asyncio.create_task(sync(coordinator, joined, assignments={joined.member_id: b"a"}))
        await asyncio.sleep(0)
        await coordinator.stop()
        assert (await syncing).error_code == E.COORDINATOR_NOT_AVAILABLE
        assert len(log.records) == 1
        assert not coordinator._joins
        assert not coordinator._syncs

    run_virtually(run())


def test_a_deletion_can_be_waited_for() -> None:
    async def run() -> None:
        log = Log()
        log.takes_s = 0.1
        coordinator = await started(log)
        joined = await join(coordinator)
        await sync(coordinator, joined)
        coordinator.leave("g", [(joined.member_id, None)])
        assert coordinator.delete("g") == E.NONE
        await coordinator.flush()
        assert log.records[-1].value is None
        await coordinator.stop()

    run_virtually(run())
