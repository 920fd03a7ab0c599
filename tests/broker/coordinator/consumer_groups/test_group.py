"""The rules of KIP-848, one by one, as Apache Kafka 4.1 has them."""

import time

import pytest

from streamcore.broker.coordinator.consumer_groups.messages import ConsumerGroupState
from streamcore.broker.coordinator.group_config import EMPTY_GROUP_RETENTION_MS, GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError, ListedGroup
from tests.broker.coordinator.consumer_groups.support import CONFIG, REBALANCE_MS, SESSION_MS, DrivenRegistry

E = GroupError


@pytest.fixture
def driven() -> DrivenRegistry:
    made = DrivenRegistry()
    made.set_topic("t", 4)
    return made


def test_the_first_member_gets_everything_at_once(driven: DrivenRegistry) -> None:
    result = driven.join("a")
    assert (result.error_code, result.member_id, result.member_epoch) == (E.NONE, "a", 1)
    assert result.heartbeat_interval_ms == 5000
    assert driven.named(result.assignment) == {("t", p) for p in range(4)}
    assert driven.heartbeat("a", 1).assignment is None
    assert driven.group().state is ConsumerGroupState.STABLE


def test_a_partition_waits_until_its_owner_has_let_go(driven: DrivenRegistry) -> None:
    everything = driven.join("a").assignment
    joined = driven.join("b")
    assert (joined.member_epoch, driven.named(joined.assignment)) == (2, set())
    told = driven.heartbeat("a", 1, owned=everything)
    assert (told.member_epoch, len(driven.named(told.assignment))) == (1, 2)
    assert driven.heartbeat("b", 2).assignment is None
    assert driven.group().state is ConsumerGroupState.RECONCILING
    assert driven.heartbeat("a", 1, owned=told.assignment).member_epoch == 2
    given = driven.heartbeat("b", 2)
    assert driven.named(given.assignment) == {("t", p) for p in range(4)} - driven.named(told.assignment)
    assert driven.group().state is ConsumerGroupState.STABLE


def test_a_member_that_does_not_say_what_it_has_goes_on_owning_it(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.join("b")
    for _ in range(3):
        assert driven.heartbeat("a", 1).member_epoch == 1
        assert driven.named(driven.heartbeat("b", 2).assignment) == set()


def test_a_member_that_does_not_let_go_in_time_is_out(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.join("b")
    told = driven.heartbeat("a", 1)
    assert told.member_epoch == 1
    for _ in range(3):
        driven.pass_time(REBALANCE_MS // 3 - 1)
        driven.heartbeat("a", 1)
        driven.heartbeat("b", 2)
    driven.pass_time(10)
    assert driven.heartbeat("a", 1).error_code == E.UNKNOWN_MEMBER_ID
    assert len(driven.named(driven.heartbeat("b", 2).assignment)) == 4


def test_a_silent_member_is_out_after_its_session(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.pass_time(SESSION_MS - 1)
    driven.heartbeat("a", 1)
    driven.pass_time(SESSION_MS)
    assert driven.heartbeat("a", 1).error_code == E.UNKNOWN_MEMBER_ID
    assert driven.group().state is ConsumerGroupState.EMPTY


@pytest.mark.parametrize("epoch", [2, 7])
def test_an_epoch_that_is_not_there_yet_is_fenced(driven: DrivenRegistry, epoch: int) -> None:
    driven.join("a")
    assert driven.heartbeat("a", epoch).error_code == E.FENCED_MEMBER_EPOCH


def test_the_previous_epoch_is_good_for_a_lost_answer(driven: DrivenRegistry) -> None:
    everything = driven.join("a").assignment
    driven.join("b")
    kept = driven.heartbeat("a", 1, owned=everything).assignment
    assert driven.heartbeat("a", 1, owned=kept).member_epoch == 2
    assert driven.heartbeat("a", 1, owned=kept).member_epoch == 2, "the answer was lost"
    assert driven.heartbeat("a", 1, owned=everything).error_code == E.FENCED_MEMBER_EPOCH
    assert driven.heartbeat("a", 1).error_code == E.FENCED_MEMBER_EPOCH


def test_an_older_request_does_not_confirm_what_was_given_since(driven: DrivenRegistry) -> None:
    first = driven.join("a").assignment
    driven.set_topic("u", 2)
    driven.heartbeat("a", 1, topics=["t", "u"])
    assert driven.assigned("a") == {("t", p) for p in range(4)} | {("u", 0), ("u", 1)}
    driven.heartbeat("a", 2, topics=["t"])
    assert driven.heartbeat("a", 1, owned=first).error_code == E.FENCED_MEMBER_EPOCH


def test_a_full_request_is_answered_with_everything(driven: DrivenRegistry) -> None:
    everything = driven.join("a").assignment
    again = driven.heartbeat("a", 1, topics=["t"], owned=everything, rebalance_ms=REBALANCE_MS)
    assert again.assignment == everything
    assert again.member_epoch == 1


def test_a_leaver_makes_room_at_once(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.join("b")
    left = driven.heartbeat("a", -1)
    assert (left.error_code, left.member_id, left.member_epoch, left.heartbeat_interval_ms) == (E.NONE, "a", -1, 0)
    assert driven.group().state is ConsumerGroupState.ASSIGNING
    assert len(driven.named(driven.heartbeat("b", 2).assignment)) == 4


def test_what_is_no_group_or_no_member_is_told(driven: DrivenRegistry) -> None:
    for epoch in (1, -1):
        assert driven.heartbeat("a", epoch).error_code == E.GROUP_ID_NOT_FOUND
    driven.join("a")
    for epoch in (1, -1):
        assert driven.heartbeat("b", epoch).error_code == E.UNKNOWN_MEMBER_ID
    assert driven.heartbeat("a", 1, instance="i").error_code == E.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize(
    ("member_id", "epoch", "options", "message"),
    [
        ("", 0, {}, "MemberId can't be empty."),
        ("a", 0, {"group_id": ""}, "GroupId can't be empty."),
        ("a", 0, {"instance": ""}, "InstanceId can't be empty."),
        ("a", 0, {"rack": ""}, "RackId can't be empty."),
        ("a", 0, {"rebalance_ms": -1}, "RebalanceTimeoutMs must be provided in first request."),
        ("a", 0, {"owned": None}, "TopicPartitions must be empty when (re-)joining."),
        ("a", 0, {"topics": None}, "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null"),
        ("a", -2, {}, "InstanceId can't be null."),
        ("a", -3, {}, "MemberEpoch is invalid."),
        ("", -1, {"makes_its_id": False}, "MemberId can't be empty."),
        ("", 5, {"makes_its_id": False}, "MemberId can't be empty."),
        ("a", 0, {"topics": ["x" * 1000] * 1000}, "bytes"),
    ],
)
def test_what_no_member_can_say_is_refused(
    driven: DrivenRegistry, member_id: str, epoch: int, options: dict[str, object], message: str
) -> None:
    result = driven.join(member_id, **options) if epoch == 0 else driven.heartbeat(member_id, epoch, **options)
    assert result.error_code == E.INVALID_REQUEST
    assert message in (result.error_message or "")
    assert not driven.log


def test_before_members_made_their_ids_the_coordinator_gives_one(driven: DrivenRegistry) -> None:
    result = driven.join("", makes_its_id=False)
    assert result.member_id
    assert driven.heartbeat(result.member_id, 1).error_code == E.NONE


def test_an_assignor_that_is_not_known_is_refused_and_the_majority_chooses(driven: DrivenRegistry) -> None:
    assert driven.join("a", assignor="sticky").error_code == E.UNSUPPORTED_ASSIGNOR
    driven.join("a")
    assert driven.group().assignor == "uniform"
    driven.join("b", assignor="range")
    assert driven.group().assignor == "range"


def test_a_group_that_is_full_takes_nobody_else() -> None:
    driven = DrivenRegistry(GroupConfig(consumer_max_size=2))
    for name in ("a", "b"):
        assert driven.join(name).error_code == E.NONE
    assert driven.join("c").error_code == E.GROUP_MAX_SIZE_REACHED
    assert driven.heartbeat("a", 1, topics=["t"]).error_code == E.NONE


def test_more_memory_than_the_node_has_for_groups_is_not_taken() -> None:
    driven = DrivenRegistry(GroupConfig(members_max_bytes=3000))
    assert driven.join("a", ["x" * 1000]).error_code == E.NONE
    assert driven.join("b", ["x" * 1000]).error_code == E.COORDINATOR_NOT_AVAILABLE
    assert driven.heartbeat("a", 1, topics=["x" * 1900]).error_code == E.NONE
    assert driven.heartbeat("a", 2, topics=["x" * 2100]).error_code == E.COORDINATOR_NOT_AVAILABLE
    assert driven.heartbeat("a", 2).error_code == E.NONE, "who has its place keeps it"
    assert driven.heartbeat("a", -1).error_code == E.NONE
    assert driven.join("b", ["x" * 1000]).error_code == E.NONE


def test_more_groups_than_the_node_takes_are_refused() -> None:
    driven = DrivenRegistry(GroupConfig(groups_max=1))
    assert driven.join("a").error_code == E.NONE
    assert driven.join("b", group_id="other").error_code == E.COORDINATOR_NOT_AVAILABLE
    assert driven.join("b").error_code == E.NONE


# --- static members ---------------------------------------------------------------------------------------------------


def test_a_static_member_comes_back_to_what_it_had(driven: DrivenRegistry) -> None:
    driven.join("a", instance="i")
    driven.join("b", instance="j")
    driven.settle("a", "b")
    had, epoch = driven.assigned("a"), driven.group().epoch
    assert driven.heartbeat("a", -2, instance="i").member_epoch == -2
    driven.pass_time(SESSION_MS - 1000)
    driven.settle("b")
    back = driven.join("c", instance="i")
    assert (driven.named(back.assignment), back.member_epoch, driven.group().epoch) == (had, epoch, epoch)
    assert set(driven.group().members) == {"b", "c"}
    assert driven.heartbeat("a", epoch, instance="i").error_code == E.FENCED_INSTANCE_ID


def test_a_static_members_place_is_not_taken_while_it_is_there(driven: DrivenRegistry) -> None:
    driven.join("a", instance="i")
    assert driven.join("b", instance="i").error_code == E.UNRELEASED_INSTANCE_ID
    assert driven.heartbeat("b", 1, instance="i").error_code == E.FENCED_INSTANCE_ID
    assert driven.heartbeat("b", -1, instance="i").error_code == E.FENCED_INSTANCE_ID
    driven.pass_time(SESSION_MS)
    assert driven.join("b", instance="i").error_code == E.NONE


def test_a_static_member_that_does_not_come_back_is_out_after_its_session(driven: DrivenRegistry) -> None:
    driven.join("a", instance="i")
    driven.heartbeat("a", -2, instance="i")
    assert driven.heartbeat("a", 1, instance="i").error_code == E.FENCED_MEMBER_EPOCH
    driven.pass_time(SESSION_MS)
    assert driven.group().state is ConsumerGroupState.EMPTY


def test_a_static_member_that_leaves_for_good_is_forgotten(driven: DrivenRegistry) -> None:
    driven.join("a", instance="i")
    driven.heartbeat("a", -1, instance="i")
    assert driven.heartbeat("a", -1, instance="i").error_code == E.UNKNOWN_MEMBER_ID


# --- subscriptions and topics -----------------------------------------------------------------------------------------


def test_a_topic_that_comes_grows_or_goes_is_noticed_at_the_next_heartbeat(driven: DrivenRegistry) -> None:
    driven.join("a", ["t", "u"])
    driven.set_topic("u", 1)
    assert driven.named(driven.heartbeat("a", 1).assignment) == {("t", p) for p in range(4)} | {("u", 0)}
    driven.set_topic("t", 5)
    assert ("t", 4) in driven.named(driven.heartbeat("a", 2).assignment)
    driven.set_topic("t", 0)
    driven.settle("a")
    assert driven.assigned("a") == {("u", 0)}
    assert driven.group().epoch == 4


def test_a_topic_of_nobody_changes_nothing(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.set_topic("other", 1)
    assert driven.heartbeat("a", 1).member_epoch == 1
    assert driven.group().epoch == 1


def test_a_topic_that_is_made_again_is_another_one(driven: DrivenRegistry) -> None:
    before = driven.join("a").assignment
    driven.set_topic("t", 0)
    driven.set_topic("t", 4)
    driven.settle("a")
    after = driven.group().members["a"].current.assigned
    assert driven.assigned("a") == {("t", p) for p in range(4)}
    assert before is not None
    assert not set(before) & set(after)


def test_a_regular_expression_follows_the_topics(driven: DrivenRegistry) -> None:
    driven.join("a", (), regex="t.*")
    assert driven.assigned("a") == {("t", p) for p in range(4)}
    driven.set_topic("tt", 1)
    driven.set_topic("other", 1)
    driven.settle("a")
    assert driven.assigned("a") == {("t", p) for p in range(4)} | {("tt", 0)}
    driven.set_topic("t", 0)
    driven.settle("a")
    assert driven.assigned("a") == {("tt", 0)}


def test_a_regular_expression_can_be_taken_back_and_joined_with_names(driven: DrivenRegistry) -> None:
    driven.set_topic("u", 1)
    driven.join("a", ["t"], regex="u")
    assert {name for name, _ in driven.assigned("a")} == {"t", "u"}
    driven.heartbeat("a", 1, regex="")
    driven.settle("a")
    assert {name for name, _ in driven.assigned("a")} == {"t"}
    assert driven.heartbeat("a", 2, regex="(").error_code == E.INVALID_REGULAR_EXPRESSION
    assert driven.join("b", regex="(").error_code == E.INVALID_REGULAR_EXPRESSION


def test_a_member_without_a_subscription_is_a_member(driven: DrivenRegistry) -> None:
    assert driven.named(driven.join("a", ()).assignment) == set()
    assert driven.group().state is ConsumerGroupState.STABLE


# --- offsets ----------------------------------------------------------------------------------------------------------


def check_commit(driven: DrivenRegistry, member_id: str, epoch: int, **options: bool) -> int:
    return driven.registry.check_commit("g", epoch, member_id, None, driven.now_ms, **options)


def test_offsets_are_committed_under_the_members_epoch_only(driven: DrivenRegistry) -> None:
    driven.join("a")
    assert check_commit(driven, "a", 1) == E.NONE
    assert check_commit(driven, "a", 2) == E.STALE_MEMBER_EPOCH
    assert check_commit(driven, "a", -1) == E.STALE_MEMBER_EPOCH
    assert check_commit(driven, "b", 1) == check_commit(driven, "", -1) == E.UNKNOWN_MEMBER_ID
    assert check_commit(driven, "a", 1, knows_epochs=False) == E.UNSUPPORTED_VERSION
    driven.heartbeat("a", -1)
    assert check_commit(driven, "", -1) == E.NONE, "nobody is there: an administrator may"


def test_offsets_are_fetched_under_the_members_epoch_or_by_who_is_no_member(driven: DrivenRegistry) -> None:
    driven.join("a")
    registry = driven.registry
    assert registry.check_fetch("g", "a", 1) == registry.check_fetch("g", None, -1) == E.NONE
    assert registry.check_fetch("g", "a", 2) == registry.check_fetch("g", "a", -1) == E.STALE_MEMBER_EPOCH
    assert registry.check_fetch("g", "b", 1) == E.UNKNOWN_MEMBER_ID
    assert registry.check_fetch("nobody's", "b", 1) == E.NONE


# --- administration ---------------------------------------------------------------------------------------------------


def test_groups_are_listed_described_and_counted_with_the_classic_ones(driven: DrivenRegistry) -> None:
    driven.join("a", instance="i", rack="r")
    driven.classic_join(group_id="classic")
    registry = driven.registry
    listed = ListedGroup("g", "consumer", "Stable", "consumer")
    assert registry.list_groups([], []) == [ListedGroup("classic", "consumer", "CompletingRebalance"), listed]
    assert registry.list_groups(["STABLE"], []) == registry.list_groups([], ["Consumer"]) == [listed]
    assert registry.list_groups([], ["classic"]) == [ListedGroup("classic", "consumer", "CompletingRebalance")]
    tally = registry.tally()
    assert (tally.by_state["Stable"], tally.by_state["CompletingRebalance"], tally.members) == (1, 1, 2)
    described = registry.describe_consumer("g")
    assert (described.state, described.group_epoch, described.target_epoch) == ("Stable", 1, 1)
    (member,) = described.members
    assert (member.instance_id, member.rack_id, member.member_epoch, member.topic_names) == ("i", "r", 1, ("t",))
    assert member.assigned == member.target
    assert registry.describe("g").error_code == E.GROUP_ID_NOT_FOUND
    assert registry.describe("g").error_message == "Group g is not a classic group."
    assert registry.describe_consumer("classic").error_message == "Group classic is not a consumer group."
    assert registry.describe_consumer("nobody's").error_message == "Group nobody's not found."
    assert registry.describe_consumer("").error_code == E.INVALID_GROUP_ID


def test_a_group_is_deleted_once_nobody_is_in_it(driven: DrivenRegistry) -> None:
    driven.join("a", (), regex="t")
    assert driven.registry.delete("g") == E.NON_EMPTY_GROUP
    driven.heartbeat("a", -1)
    assert driven.registry.delete("g") == E.NONE
    driven.store()
    assert driven.heartbeat("a", 1).error_code == E.GROUP_ID_NOT_FOUND
    assert all(dict(driven.log)[key] is None for key, _ in driven.log), "nothing of it stays in the log"


@pytest.mark.parametrize("has_offsets", [False, True])
def test_an_empty_group_goes_after_a_while_unless_it_has_offsets(has_offsets: bool) -> None:
    driven = DrivenRegistry(offset_groups=["g"] if has_offsets else [])
    driven.join("a")
    driven.heartbeat("a", -1)
    driven.pass_time(5 * EMPTY_GROUP_RETENTION_MS)
    assert ("g" in driven.registry.consumer) == has_offsets


def test_offsets_of_topics_that_members_read_do_not_expire(driven: DrivenRegistry) -> None:
    driven.join("a", ["t"], regex="t")
    unused = driven.registry.unused("g")
    assert unused is not None
    assert unused.subscribed == {"t"}
    assert driven.registry.subscribed_topics("g") == {"t"}


def test_members_are_removed_by_administrators(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.join("b", instance="i")
    left = driven.registry.leave("g", [("a", None), ("", "i"), ("x", None), ("x", "i")], driven.now_ms)
    assert [member.error_code for member in left.members] == [
        E.NONE,
        E.NONE,
        E.UNKNOWN_MEMBER_ID,
        E.FENCED_INSTANCE_ID,
    ]
    assert driven.group().state is ConsumerGroupState.EMPTY


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_a_restart_changes_nothing_but_the_deadlines(driven: DrivenRegistry) -> None:
    driven.join("a", ["t"], regex="t|u", instance="i", rack="r", assignor="range")
    driven.join("b")
    driven.heartbeat("a", 1)
    before = driven.registry.describe_consumer("g")
    driven.restart()
    assert driven.registry.describe_consumer("g") == before
    assert driven.heartbeat("b", 2).error_code == E.NONE
    assert driven.group().epoch == before.group_epoch
    driven.pass_time(SESSION_MS)
    assert driven.group().state is ConsumerGroupState.EMPTY
    driven.restart()
    assert driven.group().state is ConsumerGroupState.EMPTY


def test_what_has_become_of_the_topics_meanwhile_is_noticed_after_a_restart(driven: DrivenRegistry) -> None:
    driven.join("a", (), regex="t.*")
    driven.set_topic("tt", 2)
    driven.restart()
    driven.settle("a")
    assert {name for name, _ in driven.assigned("a")} == {"t", "tt"}


def test_a_deleted_group_is_not_read_back(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.heartbeat("a", -1)
    driven.registry.delete("g")
    driven.store()
    driven.restart()
    assert "g" not in driven.registry.consumer


def test_a_member_of_whom_the_log_has_lost_what_it_wants_is_gone(driven: DrivenRegistry) -> None:
    driven.join("a")
    driven.log = [(key, value) for key, value in driven.log if key[1] != 5]
    driven.restart()
    assert driven.heartbeat("a", 1).error_code == E.UNKNOWN_MEMBER_ID


def test_fifty_members_share_a_thousand_partitions_in_less_than_a_second() -> None:
    driven = DrivenRegistry(CONFIG)
    driven.set_topic("t", 1000)
    names = [f"m{number}" for number in range(50)]
    started_s = time.perf_counter()
    for name in names:
        driven.join(name)
    rounds = 0
    while driven.group().state is not ConsumerGroupState.STABLE:
        driven.settle(*names, rounds=1)
        rounds += 1
    assert rounds <= 4
    assert time.perf_counter() - started_s < 3, "0.2 s where nothing else runs"
    assert {len(driven.assigned(name)) for name in names} == {20}
