"""Many groups: commits, administration, expiry, what is written, and memory."""

import pytest

from streamcore.broker.coordinator.group_config import EMPTY_GROUP_RETENTION_MS, GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError, GroupMetadata, ListedGroup, MemberDescription
from tests.broker.coordinator.group_support import AT_ONCE, REBALANCE_MS, SESSION_MS, DrivenGroups

E = GroupError


# --- commits --------------------------------------------------------------------------------------------------------


def test_a_consumer_that_is_no_member_commits_while_the_group_is_empty() -> None:
    driven = DrivenGroups()
    assert driven.check_commit("", -1) == E.NONE
    assert len(driven.groups) == 0
    (member,) = driven.stable_group(1)
    assert driven.check_commit("", -1) == E.UNKNOWN_MEMBER_ID
    driven.leave((member, None))
    assert driven.check_commit("", -1) == E.NONE


def test_what_a_members_commit_is_answered_with() -> None:
    driven = DrivenGroups()
    assert driven.check_commit("somebody", 1) == E.GROUP_ID_NOT_FOUND  # no such group
    assert driven.check_commit("", -1, group_id="") == E.NONE
    leader, follower = driven.stable_group(2)
    assert driven.check_commit(follower, 2) == E.NONE
    assert driven.check_commit(follower, 1) == E.ILLEGAL_GENERATION
    assert driven.check_commit("nobody", 2) == E.UNKNOWN_MEMBER_ID
    driven.join(leader)
    assert driven.state == "PreparingRebalance"
    assert driven.check_commit(follower, 2) == E.NONE  # before it joins again
    driven.join(follower)
    assert driven.state == "CompletingRebalance"
    assert driven.check_commit(follower, 3) == E.REBALANCE_IN_PROGRESS
    assert driven.check_commit(follower, 2) == E.ILLEGAL_GENERATION


def test_a_commit_is_a_sign_of_life() -> None:
    driven = DrivenGroups()
    (member,) = driven.stable_group(1)
    for _ in range(5):
        driven.pass_time(SESSION_MS - 1)
        assert driven.check_commit(member, 1) == E.NONE


# --- administration -------------------------------------------------------------------------------------------------


def test_a_stable_group_is_described_with_what_its_members_said_and_got() -> None:
    driven = DrivenGroups()
    (member,) = driven.stable_group(1)
    described = driven.groups.describe("g")
    assert (described.state, described.protocol_type, described.protocol_name) == ("Stable", "consumer", "range")
    assert described.members == (MemberDescription(member, None, "c", "/127.0.0.1", b"topics", b"0"),)
    driven.join()
    described = driven.groups.describe("g")
    assert (described.state, described.protocol_name) == ("PreparingRebalance", "")
    assert described.members[0].metadata == b""


def test_a_group_that_does_not_exist_is_dead() -> None:
    described = DrivenGroups().groups.describe("g")
    assert (described.error_code, described.state, described.members) == (E.GROUP_ID_NOT_FOUND, "Dead", ())


def test_groups_are_listed_with_those_that_are_only_offsets() -> None:
    driven = DrivenGroups(offset_groups=["g", "simple"])
    driven.stable_group(1)
    stable, simple = ListedGroup("g", "consumer", "Stable"), ListedGroup("simple", "", "Empty")
    assert driven.groups.list_groups() == [stable, simple]


def test_a_group_is_deleted_once_nobody_is_in_it() -> None:
    driven = DrivenGroups()
    assert driven.groups.delete("g") == E.GROUP_ID_NOT_FOUND
    (member,) = driven.stable_group(1)
    assert not driven.groups.is_empty("g")
    assert driven.groups.delete("g") == E.NON_EMPTY_GROUP
    driven.leave((member, None))
    assert driven.groups.is_empty("g")
    assert driven.groups.delete("g") == E.NONE
    driven.settle()
    assert driven.log[-1].metadata is None
    assert driven.groups.delete("g") == E.GROUP_ID_NOT_FOUND


def test_a_group_that_is_nothing_but_offsets_is_empty_and_can_be_deleted() -> None:
    driven = DrivenGroups(offset_groups=["g"])
    assert (driven.state, driven.groups.delete("g")) == ("Empty", E.NONE)
    assert driven.groups.is_empty("g")


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_group_is_written_when_it_is_assigned_and_when_it_is_empty() -> None:
    driven = DrivenGroups()
    (member,) = driven.stable_group(1)
    driven.leave((member, None))
    stable, empty = (write.metadata for write in driven.log)
    assert stable is not None
    assert (stable.generation_id, stable.protocol_name, stable.leader) == (1, "range", member)
    assert [(m.metadata, m.assignment, m.session_timeout_ms) for m in stable.members] == [(b"topics", b"0", SESSION_MS)]
    assert empty == GroupMetadata("g", 2, "consumer")


def test_a_restarted_node_goes_on_with_its_groups() -> None:
    before = DrivenGroups()
    leader, follower = before.stable_group(2)
    after = DrivenGroups()
    for write in before.log:
        after.groups.restore(write.group_id, write.metadata)
    after.groups.start(after.now_ms)
    assert after.groups.describe("g") == before.groups.describe("g")
    assert after.heartbeat(follower, 2) == E.NONE
    assert after.synced(after.sync(follower, 2)).assignment == b"1"
    after.pass_time(SESSION_MS - 1)
    after.heartbeat(leader, 2)
    after.pass_time(1)
    assert after.heartbeat(leader, 2) == E.REBALANCE_IN_PROGRESS  # the other has not been heard of


def test_the_last_record_of_a_group_counts() -> None:
    before = DrivenGroups()
    (member,) = before.stable_group(1)
    before.leave((member, None))
    before.groups.delete("g")
    before.settle()
    after = DrivenGroups()
    for count, state in ((1, "Stable"), (2, "Empty"), (3, "Dead")):
        for write in before.log[:count]:
            after.groups.restore(write.group_id, write.metadata)
        assert after.state == state
    assert after.groups._members_bytes == 0


# --- time and memory ------------------------------------------------------------------------------------------------


def test_an_empty_group_goes_after_a_while_unless_it_has_offsets() -> None:
    offset_groups: list[str] = ["kept"]
    driven = DrivenGroups(offset_groups=offset_groups)
    for group_id in ("kept", "gone"):
        member_id = driven.joined(driven.join(group_id=group_id)).member_id
        driven.leave((member_id, None), group_id=group_id)
    driven.pass_time(EMPTY_GROUP_RETENTION_MS)
    driven.settle()
    assert driven.groups.list_groups() == [ListedGroup("kept", "consumer", "Empty")]
    assert (driven.log[-1].group_id, driven.log[-1].metadata) == ("gone", None)
    driven.pass_time(5 * EMPTY_GROUP_RETENTION_MS)
    assert len(driven.groups) == 1


def test_a_group_in_use_again_does_not_go() -> None:
    driven = DrivenGroups()
    (member,) = driven.stable_group(1)
    driven.leave((member, None))
    driven.pass_time(EMPTY_GROUP_RETENTION_MS - 1000)
    again = driven.joined(driven.join()).member_id
    driven.sync(again, driven.generation, {})
    for _ in range(3):
        driven.pass_time(5000)
        assert driven.heartbeat(again, driven.generation) == E.NONE


def test_groups_above_the_limit_are_refused_until_others_go() -> None:
    driven = DrivenGroups(GroupConfig(group_initial_rebalance_delay_ms=0, groups_max=2))
    for group_id in ("a", "b"):
        driven.join(group_id=group_id, needs_id=True)
    assert driven.joined(driven.join(group_id="c")).error_code == E.COORDINATOR_NOT_AVAILABLE
    driven.pass_time(SESSION_MS)
    assert driven.joined(driven.join(group_id="c")).error_code == E.NONE


def test_metadata_and_assignments_have_a_limit() -> None:
    driven = DrivenGroups(GroupConfig(group_initial_rebalance_delay_ms=0, members_max_bytes=10_000))
    (first,) = driven.stable_group(1)
    large = (("range", b"x" * 10_000),)
    assert driven.joined(driven.join(group_id="h", protocols=large)).error_code == E.COORDINATOR_NOT_AVAILABLE
    driven.join(first)
    sync = driven.sync(first, 2, {first: b"y" * 10_000})
    assert driven.synced(sync).error_code == E.COORDINATOR_NOT_AVAILABLE
    driven.leave((first, None))
    assert driven.groups._members_bytes == 0


@pytest.mark.parametrize("rebalance_ms", [0, 1])
def test_hasty_timeouts_do_not_make_the_node_busy(rebalance_ms: int) -> None:
    driven = DrivenGroups(AT_ONCE)
    driven.stable_group(instances=("i", None), rebalance_ms=rebalance_ms)
    driven.leave(driven_member(driven, None))
    looked = 0
    while driven.groups.next_deadline_ms is not None and looked < 1000:
        deadline_ms = driven.groups.next_deadline_ms
        if deadline_ms > driven.now_ms + REBALANCE_MS:
            break
        driven.pass_time(max(0, deadline_ms - driven.now_ms))
        looked += 1
    assert looked < 50


def driven_member(driven: DrivenGroups, instance: str | None) -> tuple[str, str | None]:
    members = driven.groups.describe("g").members
    return next((member.member_id, None) for member in members if member.group_instance_id == instance)


def test_what_is_due_when_does_not_pile_up() -> None:
    driven = DrivenGroups()
    (member,) = driven.stable_group(1)
    for _ in range(2000):
        member = driven.joined(driven.join(member, rebalance_ms=1)).member_id
        driven.sync(member, driven.generation, {})
        driven.pass_time(1)
    assert len(driven.groups._deadlines._heap) < 100
