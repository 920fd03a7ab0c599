"""Static members (KIP-345): a consumer that restarts under its instance id takes its old place."""

from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError
from tests.broker.coordinator.group_support import REBALANCE_MS, SESSION_MS, DrivenGroups

E = GroupError


def test_a_static_member_needs_no_id_to_join_with() -> None:
    driven = DrivenGroups()
    result = driven.joined(driven.join(instance="i", needs_id=True))
    assert (result.error_code, result.member_id) == (E.NONE, "i-1")


def test_a_follower_that_restarts_takes_its_place_without_a_rebalance() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(instances=("i", "j"))
    again = driven.joined(driven.join(instance="j"))
    assert (again.error_code, again.generation_id, again.leader, again.members) == (E.NONE, 2, leader, ())
    assert again.member_id != follower
    assert driven.state == "Stable"
    assert driven.synced(driven.sync(again.member_id, 2, instance="j")).assignment == b"1"
    assert driven.heartbeat(leader, 2, instance="i") == E.NONE


def test_who_still_speaks_under_the_old_id_is_fenced() -> None:
    driven = DrivenGroups()
    _, follower = driven.stable_group(instances=("i", "j"))
    driven.join(instance="j")
    assert driven.heartbeat(follower, 2, instance="j") == E.FENCED_INSTANCE_ID
    assert driven.check_commit(follower, 2, instance="j") == E.FENCED_INSTANCE_ID
    assert driven.synced(driven.sync(follower, 2, instance="j")).error_code == E.FENCED_INSTANCE_ID
    assert driven.joined(driven.join(follower, instance="j")).error_code == E.FENCED_INSTANCE_ID
    assert driven.leave((follower, "j")) == [E.FENCED_INSTANCE_ID]
    assert driven.heartbeat(follower, 2) == E.UNKNOWN_MEMBER_ID


def test_an_instance_id_that_is_not_known_is_an_unknown_member() -> None:
    driven = DrivenGroups()
    (member,) = driven.stable_group(instances=("i",))
    assert driven.heartbeat(member, 1, instance="other") == E.UNKNOWN_MEMBER_ID
    assert driven.joined(driven.join(member, instance="other")).error_code == E.UNKNOWN_MEMBER_ID


def test_a_leader_that_restarts_need_not_assign_again() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(instances=("i", "j"))
    again = driven.joined(driven.join(instance="i", skip=True))
    assert (again.leader, again.skip_assignment) == (again.member_id, True)
    assert {member.member_id for member in again.members} == {again.member_id, follower}
    assert driven.synced(driven.sync(again.member_id, 2, instance="i")).assignment == b"0"
    assert driven.heartbeat(leader, 2, instance="i") == E.FENCED_INSTANCE_ID


def test_an_older_leader_that_restarts_takes_itself_for_a_follower() -> None:
    driven = DrivenGroups()
    leader, _ = driven.stable_group(instances=("i", "j"))
    again = driven.joined(driven.join(instance="i"))
    assert (again.leader, again.skip_assignment, again.members) == (leader, False, ())


def test_a_restart_is_answered_once_its_new_id_is_written() -> None:
    driven = DrivenGroups()
    driven.stable_group(instances=("i", "j"))
    driven.writes_at_once = False
    ticket = driven.join(instance="j")
    assert driven.waits(ticket)
    driven.settle()
    member_id = driven.joined(ticket).member_id
    written = driven.log[-1].metadata
    assert written is not None
    assert [member.member_id for member in written.members][-1] == member_id
    assert [member.assignment for member in written.members] == [b"0", b"1"]


def test_a_restart_that_cannot_be_written_may_be_tried_again() -> None:
    driven = DrivenGroups()
    driven.stable_group(instances=("i", "j"))
    driven.writes_at_once = False
    ticket = driven.join(instance="j")
    driven.settle(E.COORDINATOR_NOT_AVAILABLE)
    assert driven.joined(ticket).error_code == E.COORDINATOR_NOT_AVAILABLE
    driven.writes_at_once = True
    assert driven.joined(driven.join(instance="j")).error_code == E.NONE
    assert driven.state == "Stable"


def test_a_restart_in_a_rebalance_that_its_write_has_not_outrun_is_a_join() -> None:
    driven = DrivenGroups()
    leader, _ = driven.stable_group(instances=("i", "j"))
    driven.writes_at_once = False
    restarted = driven.join(instance="j")
    again = driven.join(leader, instance="i")
    assert driven.joined(restarted).generation_id == driven.joined(again).generation_id == 3
    driven.settle()
    assert driven.state == "CompletingRebalance"


def test_a_restart_whose_write_is_done_in_the_next_rebalance_waits_for_that_like_any_join() -> None:
    driven = DrivenGroups()
    leader, _ = driven.stable_group(instances=("i", "j"))
    driven.writes_at_once = False
    restarted = driven.join(instance="j")
    driven.join()
    driven.settle()
    assert driven.waits(restarted)
    again = driven.joined(driven.join(leader, instance="i"))
    assert again.generation_id == driven.joined(restarted).generation_id == 3


def test_a_static_leader_that_does_not_rejoin_stays_a_member_but_leads_no_more() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(instances=("i", None), session_ms=REBALANCE_MS * 2)
    new = driven.join(session_ms=REBALANCE_MS * 2)
    again = driven.join(follower, session_ms=REBALANCE_MS * 2)
    driven.pass_time(REBALANCE_MS)
    assert driven.joined(new).leader == driven.joined(again).leader == follower
    assert leader in {member.member_id for member in driven.joined(again).members}


def test_a_restart_while_the_leader_assigns_makes_everybody_join_again() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(instances=("i", "j"))
    driven.join(leader, instance="i")
    driven.join(follower, instance="j")
    assert driven.state == "CompletingRebalance"
    waiting = driven.sync(follower, 3, instance="j")
    restarted = driven.join(instance="j")
    assert driven.synced(waiting).error_code == E.FENCED_INSTANCE_ID
    assert driven.waits(restarted)
    assert driven.heartbeat(leader, 3, instance="i") == E.REBALANCE_IN_PROGRESS


def test_a_restart_while_the_old_join_waits_fences_that() -> None:
    driven = DrivenGroups()
    leader, _ = driven.stable_group(instances=("i", "j"))
    driven.join(instance="k")
    waiting = driven.join(instance="j")
    restarted = driven.join(instance="j")
    assert driven.joined(waiting).error_code == E.FENCED_INSTANCE_ID
    assert driven.waits(restarted)
    result = driven.joined(driven.join(leader, instance="i"))
    assert [member.group_instance_id for member in result.members].count("j") == 1
    assert driven.joined(restarted).member_id in {member.member_id for member in result.members}


def test_a_restart_that_would_change_the_protocol_causes_a_rebalance() -> None:
    driven = DrivenGroups()
    both = (("range", b"topics"), ("sticky", b"topics"))
    first = driven.joined(driven.join(instance="i", protocols=both)).member_id
    driven.sync(first, 1, {})
    second = driven.join(instance="j", protocols=both)
    driven.join(first, instance="i", protocols=both)
    member_id = driven.joined(second).member_id
    driven.sync(first, 2, {}, instance="i")
    driven.sync(member_id, 2, instance="j")
    assert driven.state == "Stable"
    driven.join(instance="j", protocols=(("sticky", b"topics"),))
    assert driven.state == "PreparingRebalance"


def test_a_full_group_takes_a_static_member_back() -> None:
    driven = DrivenGroups(GroupConfig(group_initial_rebalance_delay_ms=0, group_max_size=2))
    driven.stable_group(instances=("i", "j"))
    assert driven.joined(driven.join(instance="j")).error_code == E.NONE
    assert driven.joined(driven.join(instance="k")).error_code == E.GROUP_MAX_SIZE_REACHED


def test_a_static_member_that_does_not_rejoin_stays_until_its_session_ends() -> None:
    driven = DrivenGroups()
    leader, _, third = driven.stable_group(instances=("i", "j", None), session_ms=REBALANCE_MS * 2)
    tickets = [driven.join(leader, instance="i", session_ms=REBALANCE_MS * 2)]
    tickets.append(driven.join(third, session_ms=REBALANCE_MS * 2))
    driven.pass_time(REBALANCE_MS)
    assert len(driven.joined(tickets[0]).members) == 3
    driven.sync(leader, driven.generation, {}, instance="i")
    driven.sync(third, driven.generation)
    driven.pass_time(REBALANCE_MS)
    assert driven.state == "PreparingRebalance"
    assert [str(member.group_instance_id) for member in driven.groups.describe("g").members] == ["i", "None"]


def test_while_only_static_members_are_left_and_none_joins_the_rebalance_waits_for_their_sessions() -> None:
    driven = DrivenGroups()
    session_ms = 3 * REBALANCE_MS
    leader, follower = driven.stable_group(instances=("i", None), session_ms=session_ms)
    driven.leave((follower, None))
    driven.pass_time(2 * REBALANCE_MS)
    assert driven.state == "PreparingRebalance"
    assert driven.heartbeat(leader, driven.generation, instance="i") == E.REBALANCE_IN_PROGRESS
    assert driven.joined(driven.join(leader, instance="i", session_ms=session_ms)).error_code == E.NONE


def test_an_administrator_removes_a_static_member_by_its_instance_id() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(instances=("i", "j"))
    assert driven.leave(("", "j")) == [E.NONE]
    assert driven.heartbeat(follower, 2, instance="j") == E.UNKNOWN_MEMBER_ID
    assert driven.heartbeat(leader, 2, instance="i") == E.REBALANCE_IN_PROGRESS


def test_a_static_member_that_stays_away_dies_like_any_other() -> None:
    driven = DrivenGroups()
    leader, _ = driven.stable_group(instances=("i", "j"))
    driven.pass_time(SESSION_MS // 2)
    driven.heartbeat(leader, 2, instance="i")
    driven.pass_time(SESSION_MS // 2)
    assert driven.heartbeat(leader, 2, instance="i") == E.REBALANCE_IN_PROGRESS


def test_a_restarted_member_that_does_not_fetch_its_assignment_is_out() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(instances=("i", "j"))
    driven.join(leader, instance="i")
    driven.join(follower, instance="j")
    driven.sync(leader, 3, {leader: b"", follower: b"x"}, instance="i")
    restarted = driven.joined(driven.join(instance="j")).member_id
    for _ in range(REBALANCE_MS // 5000):
        driven.heartbeat(leader, 3, instance="i")
        driven.heartbeat(restarted, 3, instance="j")
        driven.pass_time(5000)
    assert driven.heartbeat(restarted, 3, instance="j") == E.UNKNOWN_MEMBER_ID
