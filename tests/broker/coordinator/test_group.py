"""Joining, syncing, heartbeats and leaving: one group on a clock that is told the time."""

from itertools import product

import pytest

from streamcore.broker.coordinator.group_config import NEW_MEMBER_JOIN_TIMEOUT_MS, GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError, GroupState, JoinedMember
from streamcore.broker.coordinator.group_states import TRANSITIONS, Event
from tests.broker.coordinator.group_support import REBALANCE_MS, SESSION_MS, DrivenGroups

E = GroupError
WITH_DELAY = GroupConfig(group_initial_rebalance_delay_ms=3000)


# --- joining --------------------------------------------------------------------------------------------------------


def test_the_first_member_leads_a_generation_of_its_own() -> None:
    driven = DrivenGroups()
    result = driven.joined(driven.join(client_id="app"))
    assert result.error_code == E.NONE
    assert (result.generation_id, result.leader, result.member_id) == (1, "app-1", "app-1")
    assert (result.protocol_type, result.protocol_name) == ("consumer", "range")
    assert result.members == (JoinedMember("app-1", None, b"topics"),)
    assert driven.state == "CompletingRebalance"


def test_a_new_member_waits_until_those_who_are_there_have_joined_again() -> None:
    driven = DrivenGroups()
    (first,) = driven.stable_group(1)
    new = driven.join()
    assert driven.waits(new)
    assert driven.state == "PreparingRebalance"
    assert driven.heartbeat(first, 1) == E.REBALANCE_IN_PROGRESS
    again = driven.join(first)
    leader, follower = driven.joined(again), driven.joined(new)
    assert leader.generation_id == follower.generation_id == 2
    assert leader.leader == follower.leader == first
    assert {member.member_id for member in leader.members} == {first, follower.member_id}
    assert follower.members == ()


def test_a_new_member_is_given_an_id_to_join_with() -> None:
    driven = DrivenGroups()
    asked = driven.joined(driven.join(needs_id=True))
    assert (asked.error_code, asked.member_id) == (E.MEMBER_ID_REQUIRED, "c-1")
    assert driven.state == "Empty"
    joined = driven.joined(driven.join(asked.member_id, needs_id=True))
    assert (joined.error_code, joined.member_id, joined.generation_id) == (E.NONE, "c-1", 1)


def test_an_id_that_is_not_used_within_the_session_timeout_is_forgotten() -> None:
    driven = DrivenGroups()
    asked = driven.joined(driven.join(needs_id=True))
    driven.pass_time(SESSION_MS)
    assert driven.joined(driven.join(asked.member_id)).error_code == E.UNKNOWN_MEMBER_ID
    assert len(driven.groups) == 0


def test_a_rebalance_waits_for_a_member_that_was_given_an_id_but_not_for_ever() -> None:
    driven = DrivenGroups()
    (first,) = driven.stable_group(1)
    driven.join(needs_id=True)
    again = driven.join(first)
    assert driven.waits(again)
    driven.pass_time(SESSION_MS)
    assert driven.joined(again).generation_id == 2


def test_given_ids_take_no_more_memory_than_a_full_group() -> None:
    driven = DrivenGroups(GroupConfig(group_initial_rebalance_delay_ms=0, group_max_size=3))
    asked = [driven.joined(driven.join(needs_id=True)).member_id for _ in range(5)]
    assert list(driven.groups._groups["g"].members.pending) == asked[2:]


def test_a_member_id_does_not_grow_with_the_clients_name() -> None:
    driven = DrivenGroups()
    result = driven.joined(driven.join(client_id="n" * 32_000))
    assert len(result.member_id) < 300


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"group_id": ""}, E.INVALID_GROUP_ID),
        ({"session_ms": 5999}, E.INVALID_SESSION_TIMEOUT),
        ({"session_ms": 1_800_001}, E.INVALID_SESSION_TIMEOUT),
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"protocols": ()}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol_type": ""}, E.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_what_a_join_is_refused_for_leaves_no_group(options: dict, error: GroupError) -> None:
    driven = DrivenGroups()
    result = driven.joined(driven.join(**options))
    assert (result.error_code, result.generation_id) == (error, -1)
    assert len(driven.groups) == 0


def test_a_member_with_another_protocol_or_type_is_refused() -> None:
    driven = DrivenGroups()
    driven.stable_group(1)
    for options in ({"protocols": (("sticky", b""),)}, {"protocol_type": "connect"}):
        assert driven.joined(driven.join(**options)).error_code == E.INCONSISTENT_GROUP_PROTOCOL
    assert driven.state == "Stable"


def test_the_protocol_with_most_votes_among_those_all_support_is_chosen() -> None:
    driven = DrivenGroups(WITH_DELAY)
    a, b, c = (("a", b"1"), ("b", b"2"), ("x", b"")), (("b", b"3"), ("a", b"4")), (("y", b""), ("b", b"5"), ("a", b"6"))
    tickets = [driven.join(protocols=protocols) for protocols in (a, b, c)]
    driven.pass_time(REBALANCE_MS)
    assert {driven.joined(ticket).protocol_name for ticket in tickets} == {"b"}
    assert [member.metadata for member in driven.joined(tickets[0]).members] == [b"2", b"3", b"5"]


def test_a_first_rebalance_waits_for_more_members_while_they_keep_coming() -> None:
    driven = DrivenGroups(WITH_DELAY)
    tickets = [driven.join()]
    for _ in range(3):
        driven.pass_time(2000)
        tickets.append(driven.join())
    assert all(map(driven.waits, tickets))
    driven.pass_time(6000)
    assert {driven.joined(ticket).generation_id for ticket in tickets} == {1}


def test_a_first_rebalance_waits_no_longer_than_the_rebalance_timeout() -> None:
    driven = DrivenGroups(WITH_DELAY)
    first = driven.join(rebalance_ms=10_000)
    for _ in range(9):
        driven.pass_time(1000)
        driven.join(rebalance_ms=10_000)
    assert driven.waits(first)
    driven.pass_time(1000)
    assert driven.joined(first).generation_id == 1


def test_a_first_rebalance_that_everybody_has_left_leaves_an_empty_group() -> None:
    driven = DrivenGroups(WITH_DELAY)
    asked = driven.joined(driven.join(needs_id=True)).member_id
    ticket = driven.join(asked)
    assert driven.leave((asked, None)) == [E.NONE]
    assert driven.joined(ticket).error_code == E.UNKNOWN_MEMBER_ID
    driven.pass_time(3000)
    assert driven.state == "Empty"


def test_a_full_group_takes_no_more_members() -> None:
    driven = DrivenGroups(GroupConfig(group_initial_rebalance_delay_ms=0, group_max_size=2))
    _, second = driven.stable_group(2)
    refused = driven.joined(driven.join())
    assert (refused.error_code, refused.member_id) == (E.GROUP_MAX_SIZE_REACHED, "")
    assert driven.state == "Stable"
    assert driven.joined(driven.join(second)).error_code == E.NONE


def test_in_a_rebalance_those_who_have_joined_count_and_who_comes_too_late_goes() -> None:
    driven = DrivenGroups(GroupConfig(group_initial_rebalance_delay_ms=0, group_max_size=2))
    leader, second = driven.stable_group(2)
    assert driven.waits(driven.join(leader))
    new = driven.join()
    assert driven.waits(new)  # the second member has not come yet, and may be dead
    assert driven.joined(driven.join(second)).error_code == E.GROUP_MAX_SIZE_REACHED
    assert driven.joined(new).generation_id == driven.generation


# --- joining again --------------------------------------------------------------------------------------------------


def test_in_a_stable_group_a_follower_that_joins_unchanged_is_told_its_generation() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    result = driven.joined(driven.join(follower))
    assert (result.error_code, result.generation_id, result.leader, result.members) == (E.NONE, 2, leader, ())
    assert driven.state == "Stable"
    assert driven.synced(driven.sync(follower, 2)).assignment == b"1"


def test_in_a_stable_group_a_leader_that_joins_unchanged_causes_a_rebalance() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    again = driven.join(leader)
    assert driven.waits(again)
    assert driven.heartbeat(follower, 2) == E.REBALANCE_IN_PROGRESS
    driven.join(follower)
    assert driven.joined(again).generation_id == 3


def test_a_follower_that_joins_with_other_metadata_causes_a_rebalance() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    changed = driven.join(follower, protocols=(("range", b"other topics"),))
    assert driven.waits(changed)
    again = driven.joined(driven.join(leader))
    assert [member.metadata for member in again.members] == [b"topics", b"other topics"]


def test_before_the_assignment_a_member_that_missed_the_answer_gets_it_again() -> None:
    driven = DrivenGroups()
    first = driven.joined(driven.join()).member_id
    again = driven.joined(driven.join(first))
    assert (again.generation_id, len(again.members)) == (1, 1)
    assert driven.state == "CompletingRebalance"


def test_before_the_assignment_other_metadata_sends_those_who_sync_back_to_join() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    driven.join(leader)
    driven.join(follower)
    sync = driven.sync(follower, 3)
    assert driven.waits(sync)
    driven.join(leader, protocols=(("range", b"other topics"),))
    assert driven.synced(sync).error_code == E.REBALANCE_IN_PROGRESS
    assert driven.state == "PreparingRebalance"


def test_a_join_that_is_sent_again_while_it_waits_takes_the_place_of_the_first() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    one = driven.join(leader)
    two = driven.join(leader)
    assert driven.joined(one).error_code == E.REBALANCE_IN_PROGRESS
    driven.join(follower)
    assert driven.joined(two).generation_id == 3


def test_no_member_is_forgotten_when_many_join_at_once() -> None:
    driven = DrivenGroups()
    tickets = [driven.join() for _ in range(50)]
    first = driven.joined(tickets[0]).member_id
    again = driven.join(first)
    results = [driven.joined(ticket) for ticket in [again, *tickets[1:]]]
    assert {result.error_code for result in results} == {E.NONE}
    assert {member.member_id for member in results[0].members} == {result.member_id for result in results}
    assert len(results[0].members) == 50


# --- members that do not come ---------------------------------------------------------------------------------------


def test_who_does_not_join_within_the_rebalance_timeout_is_out_though_its_heart_beats() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    again = driven.join(leader)
    for _ in range(REBALANCE_MS // 5000):
        assert driven.heartbeat(follower, 2) == E.REBALANCE_IN_PROGRESS
        driven.pass_time(5000)
    assert [member.member_id for member in driven.joined(again).members] == [leader]
    assert driven.heartbeat(follower, 2) == E.UNKNOWN_MEMBER_ID


def test_who_is_silent_for_its_session_timeout_is_out_and_the_rebalance_goes_on() -> None:
    driven = DrivenGroups()
    leader, _ = driven.stable_group(2)
    again = driven.join(leader)
    driven.pass_time(SESSION_MS - 1)
    assert driven.waits(again)
    driven.pass_time(1)
    assert len(driven.joined(again).members) == 1


def test_a_rebalance_waits_for_the_longest_rebalance_timeout() -> None:
    driven = DrivenGroups()
    (leader,) = driven.stable_group(1, rebalance_ms=20_000, session_ms=30_000)
    driven.join(rebalance_ms=25_000, session_ms=30_000)
    driven.pass_time(24_999)
    assert driven.state == "PreparingRebalance"
    driven.pass_time(1)
    assert driven.state == "CompletingRebalance"
    assert driven.heartbeat(leader, 1) == E.UNKNOWN_MEMBER_ID


def test_a_leader_that_does_not_join_is_replaced_by_one_that_did() -> None:
    driven = DrivenGroups()
    _, second, third = driven.stable_group(3)
    changed = driven.join(third, protocols=(("range", b"other topics"),))
    driven.pass_time(5000)
    also = driven.join(second)
    driven.pass_time(SESSION_MS)
    assert driven.joined(changed).leader == driven.joined(also).leader == second
    assert len(driven.joined(also).members) == 2


def test_who_joins_but_does_not_sync_within_the_rebalance_timeout_is_out() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    driven.join(leader)
    driven.join(follower)
    sync = driven.sync(follower, 3)
    for _ in range(REBALANCE_MS // 5000):
        driven.heartbeat(leader, 3)  # alive, but it does not assign
        driven.pass_time(5000)
    assert driven.synced(sync).error_code == E.REBALANCE_IN_PROGRESS
    assert driven.heartbeat(leader, 3) == E.UNKNOWN_MEMBER_ID
    assert driven.joined(driven.join(follower)).leader == follower


def test_a_follower_that_never_fetches_its_assignment_is_out() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    driven.join(leader)
    driven.join(follower)
    driven.sync(leader, 3)
    for _ in range(REBALANCE_MS // 5000):
        assert (driven.heartbeat(leader, 3), driven.heartbeat(follower, 3)) == (E.NONE, E.NONE)
        driven.pass_time(5000)
    assert driven.heartbeat(leader, 3) == E.REBALANCE_IN_PROGRESS
    assert driven.heartbeat(follower, 3) == E.UNKNOWN_MEMBER_ID


def test_the_clock_of_a_session_starts_when_the_answer_is_sent() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    again = driven.join(leader)
    for _ in range(8):
        driven.heartbeat(follower, 2)
        driven.pass_time(5000)
    driven.join(follower)
    assert driven.joined(again).error_code == E.NONE
    driven.pass_time(SESSION_MS - 1)
    assert driven.heartbeat(leader, 3) == E.NONE


def test_a_new_member_is_not_kept_waiting_for_ever() -> None:
    driven = DrivenGroups()
    (leader,) = driven.stable_group(1, rebalance_ms=3_600_000)
    new = driven.join()
    waited_ms = 0
    while driven.waits(new) and waited_ms < 3_600_000:
        driven.heartbeat(leader, 1)
        driven.pass_time(5000)
        waited_ms += 5000
    assert waited_ms == NEW_MEMBER_JOIN_TIMEOUT_MS
    assert driven.joined(new).error_code == E.UNKNOWN_MEMBER_ID


def test_a_group_whose_last_member_dies_is_empty_in_a_new_generation() -> None:
    driven = DrivenGroups()
    driven.stable_group(1)
    driven.pass_time(SESSION_MS)
    assert driven.state == "Empty"
    assert driven.generation == 2
    assert driven.joined(driven.join()).generation_id == 3


# --- the assignment -------------------------------------------------------------------------------------------------


def test_a_sync_waits_for_the_leaders_assignment_and_each_gets_its_own() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    driven.join(leader)
    driven.join(follower)
    early = driven.sync(follower, 3)
    assert driven.waits(early)
    own = driven.sync(leader, 3, {leader: b"l", follower: b"f", "stranger": b"s"})
    assert driven.synced(early) == (E.NONE, "consumer", "range", b"f")
    assert driven.synced(own).assignment == b"l"


def test_a_member_that_the_leader_leaves_out_gets_nothing() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    driven.join(leader)
    driven.join(follower)
    driven.sync(leader, 3, {leader: b"all"})
    assert driven.synced(driven.sync(follower, 3)).assignment == b""


def test_an_assignment_counts_once_it_is_written() -> None:
    driven = DrivenGroups()
    first = driven.joined(driven.join()).member_id
    driven.writes_at_once = False
    sync = driven.sync(first, 1, {first: b"mine"})
    assert driven.waits(sync)
    assert driven.state == "CompletingRebalance"
    driven.settle()
    assert driven.synced(sync).assignment == b"mine"
    assert driven.state == "Stable"


def test_an_assignment_that_cannot_be_written_sends_everybody_back_to_join() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    driven.join(leader)
    driven.join(follower)
    driven.writes_at_once = False
    syncs = [driven.sync(follower, 3), driven.sync(leader, 3, {leader: b"l"})]
    driven.settle(E.COORDINATOR_NOT_AVAILABLE)
    assert {driven.synced(sync).error_code for sync in syncs} == {E.COORDINATOR_NOT_AVAILABLE}
    assert driven.state == "PreparingRebalance"


def test_an_assignment_that_is_written_too_late_is_nobodys() -> None:
    driven = DrivenGroups()
    first = driven.joined(driven.join()).member_id
    driven.writes_at_once = False
    sync = driven.sync(first, 1, {first: b"mine"})
    driven.join()
    driven.settle()
    assert driven.synced(sync).error_code == E.REBALANCE_IN_PROGRESS
    assert driven.state == "PreparingRebalance"


def test_what_a_sync_is_refused_for() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    refusals = [
        (driven.sync(follower, 2, group_id=""), E.INVALID_GROUP_ID),
        (driven.sync(follower, 2, group_id="other"), E.UNKNOWN_MEMBER_ID),
        (driven.sync("nobody", 2), E.UNKNOWN_MEMBER_ID),
        (driven.sync(follower, 1), E.ILLEGAL_GENERATION),
        (driven.sync(follower, 2, protocol_type="connect"), E.INCONSISTENT_GROUP_PROTOCOL),
        (driven.sync(follower, 2, protocol_name="sticky"), E.INCONSISTENT_GROUP_PROTOCOL),
        (driven.sync(follower, 2, protocol_type=None, protocol_name=None), E.NONE),
    ]
    driven.join(leader)
    refusals.append((driven.sync(follower, 2), E.REBALANCE_IN_PROGRESS))
    assert [driven.synced(ticket).error_code for ticket, _ in refusals] == [error for _, error in refusals]


# --- heartbeats and leaving -----------------------------------------------------------------------------------------


def test_what_a_heartbeat_is_answered_with() -> None:
    driven = DrivenGroups()
    assert driven.heartbeat("nobody", 1) == E.UNKNOWN_MEMBER_ID
    assert driven.heartbeat("nobody", 1, group_id="") == E.INVALID_GROUP_ID
    (member,) = driven.stable_group(1)
    assert driven.heartbeat(member, 1) == E.NONE
    assert driven.heartbeat(member, 0) == E.ILLEGAL_GENERATION
    assert driven.heartbeat("nobody", 1) == E.UNKNOWN_MEMBER_ID
    driven.join(member)
    assert driven.state == "CompletingRebalance"
    assert driven.heartbeat(member, 2) == E.NONE


def test_heartbeats_keep_a_member_alive() -> None:
    driven = DrivenGroups()
    (member,) = driven.stable_group(1)
    for _ in range(20):
        driven.pass_time(SESSION_MS - 1)
        assert driven.heartbeat(member, 1) == E.NONE


def test_when_a_member_leaves_the_others_share_at_once() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    assert driven.leave((leader, None)) == [E.NONE]
    assert driven.heartbeat(follower, 2) == E.REBALANCE_IN_PROGRESS
    assert driven.joined(driven.join(follower)).leader == follower


def test_when_the_last_member_leaves_the_group_is_empty() -> None:
    driven = DrivenGroups()
    members = driven.stable_group(2)
    assert driven.leave(*((member, None) for member in members)) == [E.NONE, E.NONE]
    assert driven.state == "Empty"


def test_a_member_that_leaves_while_it_waits_is_answered() -> None:
    driven = DrivenGroups()
    leader, follower = driven.stable_group(2)
    join = driven.join(leader)
    driven.leave((leader, None))
    assert driven.joined(join).error_code == E.UNKNOWN_MEMBER_ID
    driven.join(follower)
    sync = driven.sync(follower, 3)  # it leads: answered
    assert driven.synced(sync).error_code == E.NONE
    third = driven.join()
    driven.join(follower)
    third_id = driven.joined(third).member_id
    waiting = driven.sync(third_id, 4)
    driven.leave((third_id, None))
    assert driven.synced(waiting).error_code == E.UNKNOWN_MEMBER_ID


def test_who_leaves_is_told_when_it_was_not_there() -> None:
    driven = DrivenGroups()
    assert driven.leave(("nobody", None)) == [E.UNKNOWN_MEMBER_ID]
    assert driven.groups.leave("", [("nobody", None)], 0).error_code == E.INVALID_GROUP_ID
    (member,) = driven.stable_group(1)
    asked = driven.joined(driven.join(needs_id=True)).member_id
    errors = driven.leave(("nobody", None), ("", None), ("", "no-instance"), (asked, None))
    assert errors == [E.UNKNOWN_MEMBER_ID, E.UNKNOWN_MEMBER_ID, E.UNKNOWN_MEMBER_ID, E.NONE]
    assert driven.heartbeat(member, 1) in (E.NONE, E.REBALANCE_IN_PROGRESS)


# --- the table ------------------------------------------------------------------------------------------------------


def test_a_dead_group_has_no_way_back_and_every_other_state_has_a_way_out() -> None:
    assert not any(state is GroupState.DEAD for state, _ in TRANSITIONS)
    assert {state for state, _ in TRANSITIONS} == set(GroupState) - {GroupState.DEAD}


def test_an_event_that_is_not_in_the_table_is_an_error() -> None:
    for state, event in product(GroupState, Event):
        group = DrivenGroups()
        group.join(needs_id=True)
        machine = group.groups._groups["g"]
        machine.state = state
        if (state, event) in TRANSITIONS:
            machine.step(event)
            assert machine.state is TRANSITIONS[state, event]
        else:
            with pytest.raises(KeyError):
                machine.step(event)
