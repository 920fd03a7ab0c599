"""A group that moves from one protocol to the other with its members, and back."""

from collections.abc import Iterable

import pytest

from streamcore.broker.coordinator.consumer_groups.messages import ConsumerGroupState
from streamcore.broker.coordinator.group_config import GroupConfig, MigrationPolicy
from streamcore.broker.coordinator.group_messages import GroupError
from streamcore.protocol.consumer_protocol import encode_assignment
from streamcore.types import TP
from tests.broker.coordinator.consumer_groups.support import REBALANCE_MS, DrivenRegistry, Partition

E = GroupError
CLASSIC_SESSION_MS = 10_000


def made(**settings: object) -> DrivenRegistry:
    driven = DrivenRegistry(GroupConfig(group_initial_rebalance_delay_ms=0, **settings))  # type: ignore[arg-type]
    driven.set_topic("t", 4)
    return driven


def partitions(*numbers: int) -> set[Partition]:
    return {("t", number) for number in numbers}


def classic_group(driven: DrivenRegistry) -> str:
    """A stable classic group of one member with all partitions; its id."""
    joined = driven.classic_join()
    assert joined is not None
    everything = encode_assignment([TP("t", number) for number in range(4)])
    synced = driven.classic_sync(joined.member_id, joined.generation_id, {joined.member_id: everything})
    assert synced is not None
    assert synced.assignment == everything
    return joined.member_id


def step(driven: DrivenRegistry, member_id: str, owned: Iterable[Partition]) -> tuple[int, set[Partition]]:
    """A classic member joins and syncs; its generation and what it has."""
    joined = driven.classic_join(member_id, owned=owned)
    assert joined is not None
    assert joined.error_code == E.NONE
    assert (joined.leader, joined.members, joined.protocol_name) == ("", (), "range")
    return joined.generation_id, driven.synced(member_id, joined.generation_id)


def test_a_member_of_the_newer_protocol_joins_a_running_classic_group() -> None:
    driven = made()
    old = classic_group(driven)
    joined = driven.join("new")
    assert (joined.member_epoch, driven.named(joined.assignment)) == (2, set())
    assert driven.assigned(old) == partitions(0, 1, 2, 3), "the classic member goes on with what it has"
    assert driven.classic_heartbeat(old, 1) == E.REBALANCE_IN_PROGRESS
    generation, has = step(driven, old, partitions(0, 1, 2, 3))
    assert (generation, len(has)) == (1, 2)
    assert driven.classic_heartbeat(old, generation) == E.REBALANCE_IN_PROGRESS, "it has to say that it let go"
    generation, has = step(driven, old, has)
    assert (generation, len(has)) == (2, 2)
    assert driven.classic_heartbeat(old, generation) == E.NONE
    assert driven.named(driven.heartbeat("new", 2).assignment) == partitions(0, 1, 2, 3) - has
    assert driven.group().state is ConsumerGroupState.STABLE
    described = driven.registry.describe_consumer("g")
    assert {member.member_id: member.is_classic for member in described.members} == {old: True, "new": False}


def test_the_last_member_of_the_newer_protocol_leaves_a_classic_group() -> None:
    driven = made()
    old = classic_group(driven)
    driven.join("new")
    _, has = step(driven, old, partitions(0, 1, 2, 3))
    generation, has = step(driven, old, has)
    driven.heartbeat("new", -1)
    assert "g" not in driven.registry.consumer
    assert driven.registry.describe("g").state == "PreparingRebalance"
    assert driven.classic_heartbeat(old, generation) == E.ILLEGAL_GENERATION, "it joins anew"
    joined = driven.classic_join(old)
    assert joined is not None
    assert (joined.leader, joined.generation_id) == (old, 4)
    everything = encode_assignment([TP("t", number) for number in range(4)])
    assert driven.classic_sync(old, 4, {old: everything}) is not None
    assert driven.registry.describe("g").state == "Stable"


@pytest.mark.parametrize("ends", ["leaves", "is silent", "is removed"])
def test_a_group_becomes_classic_however_its_last_newer_member_ends(ends: str) -> None:
    driven = made()
    old = classic_group(driven)
    driven.join("new")
    if ends == "leaves":
        driven.heartbeat("new", -1)
    elif ends == "is removed":
        driven.registry.leave("g", [("new", None)], driven.now_ms)
    else:
        for _ in range(10):
            driven.pass_time(5000)
            if "g" in driven.registry.consumer:
                driven.classic_heartbeat(old, 1)
    assert "g" not in driven.registry.consumer
    assert [member.member_id for member in driven.registry.describe("g").members] == [old]


@pytest.mark.parametrize("policy", [MigrationPolicy.DISABLED, MigrationPolicy.DOWNGRADE])
def test_without_the_policy_a_running_classic_group_stays_one(policy: MigrationPolicy) -> None:
    driven = made(consumer_migration_policy=policy)
    old = classic_group(driven)
    assert driven.join("new").error_code == E.GROUP_ID_NOT_FOUND
    assert driven.classic_heartbeat(old, 1) == E.NONE
    driven.registry.leave("g", [(old, None)], driven.now_ms)
    assert driven.join("new").error_code == E.NONE, "without members it does not matter"


@pytest.mark.parametrize("policy", [MigrationPolicy.DISABLED, MigrationPolicy.UPGRADE])
def test_without_the_policy_a_consumer_group_stays_one(policy: MigrationPolicy) -> None:
    driven = made(consumer_migration_policy=policy)
    driven.join("new")
    joined = driven.classic_join("old")
    assert joined is not None
    driven.heartbeat("new", -1)
    assert driven.group().is_classic


def test_a_group_without_members_is_what_the_next_one_makes_of_it() -> None:
    driven = made()
    old = classic_group(driven)
    driven.registry.leave("g", [(old, None)], driven.now_ms)
    assert driven.join("new").member_epoch == 1
    assert "g" not in driven.registry.classic
    driven.heartbeat("new", -1)
    classic_group(driven)
    assert "g" not in driven.registry.consumer


def test_whoever_waits_in_a_classic_group_is_sent_to_the_consumer_group() -> None:
    driven = made()
    old = classic_group(driven)
    assert driven.classic_join("", needs_id=False) is None, "it waits for the other one"
    driven.join("new")
    assert driven.group().members.keys() >= {old, "new"}
    assert driven.group().epoch == 2


def test_a_group_that_is_no_consumers_stays_classic() -> None:
    driven = made()
    driven.classic_join(protocol_type="connect")
    assert driven.join("new").error_code == E.GROUP_ID_NOT_FOUND
    other = made()
    other.classic_join(metadata=b"\0")
    assert other.join("new").error_code != E.NONE
    assert "g" in other.registry.classic


def test_a_classic_member_joins_a_consumer_group() -> None:
    driven = made()
    everything = driven.join("new").assignment
    asked = driven.classic_join(needs_id=True)
    assert asked is not None
    assert asked.error_code == E.MEMBER_ID_REQUIRED
    generation, has = step(driven, asked.member_id, ())
    assert (generation, has) == (2, set())
    assert driven.classic_heartbeat(asked.member_id, 2) == E.NONE, "what it shall have is still with the other one"
    kept = driven.heartbeat("new", 1, owned=everything).assignment
    driven.heartbeat("new", 1, owned=kept)
    assert driven.classic_heartbeat(asked.member_id, 2) == E.REBALANCE_IN_PROGRESS, "now it is free"
    generation, has = step(driven, asked.member_id, ())
    assert (generation, len(has)) == (2, 2)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"protocol_type": "connect"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocols": ()}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocols": ("sticky",)}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"metadata": b"\0"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"instance": "i", "member_id": "x"}, E.UNKNOWN_MEMBER_ID),
    ],
)
def test_a_classic_member_that_does_not_fit_is_refused(options: dict[str, object], error: GroupError) -> None:
    driven = made()
    driven.join("new")
    driven.classic_join("old")
    before = list(driven.log)
    refused = driven.classic_join(**{"member_id": "other", **options})  # type: ignore[arg-type]
    assert refused is not None
    assert refused.error_code == error
    assert driven.log == before


def test_classic_requests_of_others_are_refused() -> None:
    driven = made()
    driven.join("new")
    driven.classic_join("old")
    assert driven.classic_heartbeat("nobody", 2) == driven.classic_heartbeat("new", 1) == E.UNKNOWN_MEMBER_ID
    assert driven.classic_heartbeat("old", 1) == E.ILLEGAL_GENERATION
    refused = driven.classic_sync("old", 1)
    assert refused is not None
    assert refused.error_code == E.ILLEGAL_GENERATION
    assert driven.registry.check_commit("g", 1, "old", None, driven.now_ms) == E.ILLEGAL_GENERATION
    assert driven.registry.check_commit("g", 2, "old", None, driven.now_ms) == E.NONE


@pytest.mark.parametrize("stops", ["beating", "syncing", "joining"])
def test_a_classic_member_that_stops_is_out(stops: str) -> None:
    driven = made(group_max_session_timeout_ms=1 << 30)
    driven.join("new")
    driven.classic_join("old")
    if stops != "syncing":
        driven.synced("old", 2)
    if stops == "joining":
        driven.join("another")
    for _ in range(REBALANCE_MS // 5000 + 1):
        driven.pass_time(5000)
        for member in list(driven.group().members.values()):
            if member.metadata.classic is None:
                driven.heartbeat(member.member_id, member.current.epoch, owned=member.current.assigned)
        if stops != "beating" and "old" in driven.group().members:
            driven.classic_heartbeat("old", 2)
    assert "old" not in driven.group().members


def test_a_static_member_changes_its_protocol_and_keeps_its_place() -> None:
    driven = made()
    joined = driven.classic_join(instance="i")
    assert joined is not None
    everything = encode_assignment([TP("t", number) for number in range(4)])
    driven.classic_sync(joined.member_id, 1, {joined.member_id: everything})
    newer = driven.join("new", instance="i")
    assert driven.named(newer.assignment) == partitions(0, 1, 2, 3)
    assert list(driven.group().members) == ["new"]
    back = driven.classic_join(instance="i")
    assert back is not None
    assert back.error_code == E.NONE
    assert "g" in driven.registry.classic, "nobody needs the newer protocol any more"


def test_a_mixed_group_survives_a_restart() -> None:
    driven = made()
    driven.join("new")
    driven.classic_join("old")
    before = driven.registry.describe_consumer("g")
    driven.restart()
    assert driven.registry.describe_consumer("g") == before
    assert driven.classic_heartbeat("old", 2) == E.NONE
    driven.pass_time(CLASSIC_SESSION_MS)
    assert list(driven.group().members) == ["new"]
