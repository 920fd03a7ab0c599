"""Consumers that come, hang, leave, restart and are slow at random, while answers are lost or late and topics change;
some of them speak the classic protocol within the group.

Whatever happens, no partition is owned by two members. Once things are calm, everybody has what it shall have: all
partitions are with somebody who subscribes to them, and evenly where all subscribe to the same.
"""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamcore.broker.coordinator.consumer_groups.assignment import (
    NOTHING,
    Assignment,
    difference,
    union,
)
from streamcore.broker.coordinator.consumer_groups.messages import ConsumerGroupState, HeartbeatRequest, HeartbeatResult
from streamcore.broker.coordinator.consumer_groups.mixed_group import partitions_of
from streamcore.broker.coordinator.group_config import MigrationPolicy
from streamcore.broker.coordinator.group_messages import GroupError
from streamcore.protocol.consumer_protocol import decode_assignment
from tests.broker.coordinator.consumer_groups.support import CONFIG, REBALANCE_MS, SESSION_MS, DrivenRegistry

E = GroupError
HEARTBEAT_MS = 2500
TOPICS = ["t", "u", "vv"]
SUBSCRIPTIONS: list[tuple[tuple[str, ...], str | None]] = [
    (("t",), None),
    (("t", "u"), None),
    (("u", "vv"), None),
    ((), "."),
    ((), "t|vv"),
    (("t",), "u"),
]
CALM_ROUNDS = 120  # of a heartbeat's interval each: more than a session and a rebalance of what is dead
numbers = st.integers(0, 7)


class Client:
    """A consumer as the clients' libraries write it: one request at a time, and it does what the answer says."""

    def __init__(self, member_id: str, instance: str | None, subscription: tuple[tuple[str, ...], str | None]) -> None:
        self.member_id, self.instance = member_id, instance
        self.subscription = subscription
        self.is_slow = False  # it does not let go of anything
        self.is_hung = False  # it sends nothing
        self.answer: HeartbeatResult | None = None  # on its way
        self.is_classic = False
        self.forget()

    def forget(self) -> None:
        """Nothing is its own any more: it has to join."""
        self.epoch = 0
        self.owned: Assignment = NOTHING
        self.given: Assignment = NOTHING  # by the latest answer
        self.says_all = True
        self.phase = "join"  # then "sync" and "member", of a classic one


class GroupsUnderFire(RuleBasedStateMachine):
    @initialize(
        partitions=st.lists(st.integers(1, 5), min_size=2, max_size=2),
        clients=st.lists(
            st.tuples(st.sampled_from([None, "i", "j"]), st.sampled_from(SUBSCRIPTIONS)), min_size=1, max_size=3
        ),
        classic=st.integers(0, 2),
    )
    def begin(
        self,
        partitions: list[int],
        clients: list[tuple[str | None, tuple[tuple[str, ...], str | None]]],
        classic: int,
    ) -> None:
        # With a way back the classic members would be a classic group in the end, which has a model of its own.
        self.driven = DrivenRegistry(replace(CONFIG, consumer_migration_policy=MigrationPolicy.UPGRADE))
        for name, count in zip(TOPICS, partitions, strict=False):
            self.driven.set_topic(name, count)
        self.clients: list[Client] = []
        self.made = 0
        for instance, subscription in clients:
            self.a_client_starts(instance, subscription)
        self.all_go_on(1)
        for _ in range(classic):
            self.a_classic_client_starts(("t", "u"))
        self.all_go_on(6)

    # --- what consumers do --------------------------------------------------------------------------------------------

    @rule(instance=st.sampled_from([None, None, "i", "j"]), subscription=st.sampled_from(SUBSCRIPTIONS))
    def a_client_starts(self, instance: str | None, subscription: tuple[tuple[str, ...], str | None]) -> None:
        if len(self.clients) < 6 and (instance is None or instance not in [c.instance for c in self.clients]):
            self.made += 1
            self.clients.append(Client(f"m{self.made}", instance, subscription))

    @rule(names=st.sampled_from([names for names, regex in SUBSCRIPTIONS if regex is None]))
    def a_classic_client_starts(self, names: tuple[str, ...]) -> None:
        if len(self.clients) < 6:
            self.clients.append(Client("", None, (names, None)))
            self.clients[-1].is_classic = True

    @rule(number=numbers, is_lost=st.booleans())
    def a_client_asks(self, number: int, is_lost: bool) -> None:
        if self.clients:
            client = self.clients[number % len(self.clients)]
            self._ask(client, is_lost=is_lost)
            if is_lost:
                client.answer, client.says_all = None, True

    @rule(number=numbers)
    def a_client_hears(self, number: int) -> None:
        if self.clients:
            self._hear(self.clients[number % len(self.clients)])

    @rule(rounds=st.integers(1, 4))
    def all_go_on(self, rounds: int) -> None:
        for _ in range(rounds):
            for client in list(self.clients):
                self._ask(client)
                self._hear(client)

    @rule(number=numbers, is_static_leave=st.booleans())
    def a_client_leaves(self, number: int, is_static_leave: bool) -> None:
        if self.clients:
            client = self.clients.pop(number % len(self.clients))
            epoch = -2 if client.instance is not None and is_static_leave else -1
            if client.is_classic:
                self.driven.registry.leave("g", [(client.member_id, None)], self.driven.now_ms)
                self.driven.store()
            elif client.epoch > 0 and not client.is_hung:
                self.driven.heartbeat(client.member_id, epoch, instance=client.instance)

    @rule(number=numbers, is_orderly=st.booleans())
    def a_static_client_restarts(self, number: int, is_orderly: bool) -> None:
        static = [client for client in self.clients if client.instance is not None and client.epoch > 0]
        if static:
            client = static[number % len(static)]
            if is_orderly:
                self.driven.heartbeat(client.member_id, -2, instance=client.instance)
            self.made += 1
            self.clients.remove(client)
            self.clients.append(Client(f"m{self.made}", client.instance, client.subscription))
            self._ask(self.clients[-1])

    @rule(number=numbers)
    def a_client_hangs(self, number: int) -> None:
        if self.clients:
            self.clients[number % len(self.clients)].is_hung = True

    @rule(number=numbers, is_slow=st.booleans())
    def a_client_is_slow(self, number: int, is_slow: bool) -> None:
        if self.clients:
            self.clients[number % len(self.clients)].is_slow = is_slow

    @rule(number=numbers, subscription=st.sampled_from(SUBSCRIPTIONS))
    def a_client_subscribes_to_something_else(
        self, number: int, subscription: tuple[tuple[str, ...], str | None]
    ) -> None:
        if self.clients:
            client = self.clients[number % len(self.clients)]
            names, regex = subscription
            client.subscription = (names or ("t",), None) if client.is_classic else (names, regex)
            client.says_all, client.phase = True, "join"

    # --- what else happens --------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(TOPICS), more=st.integers(1, 3))
    def a_topic_comes_or_grows(self, name: str, more: int) -> None:
        known = self.driven.topics.by_name.get(name)
        self.driven.set_topic(name, more + (known.partitions if known is not None else 0))

    @rule(name=st.sampled_from(TOPICS))
    def a_topic_goes(self, name: str) -> None:
        self.driven.set_topic(name, 0)

    @rule()
    def the_broker_restarts(self) -> None:
        self.driven.restart()

    @rule(milliseconds=st.sampled_from([1000, 20_000, SESSION_MS, REBALANCE_MS]))
    def time_passes(self, milliseconds: int) -> None:
        self._pass_time(milliseconds)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def no_partition_has_two_owners(self) -> None:
        owners: dict[tuple[object, int], str] = {}
        for client in self._members():
            for topic_id, partitions in client.owned.items():
                for partition in partitions:
                    other = owners.setdefault((topic_id, partition), client.member_id)
                    assert other == client.member_id, f"{other} and {client.member_id} own {topic_id}-{partition}"

    @invariant()
    def what_is_promised_overlaps_nowhere(self) -> None:
        if "g" in self.driven.registry.consumer:
            group = self.driven.group()
            for kind in ("assigned", "all"):
                seen: set[tuple[object, int]] = set()
                for member in group.members.values():
                    current = member.current
                    held = current.assigned if kind == "assigned" else union(current.assigned, current.revoking)
                    own = {(topic_id, partition) for topic_id, found in held.items() for partition in found}
                    assert not own & seen
                    seen |= own
            assert group.target_epoch <= group.epoch

    @invariant()
    def nothing_is_left_behind(self) -> None:
        consumer = self.driven.registry.consumer
        assert consumer._members_bytes == sum(group.size_bytes for group in consumer)
        for group in consumer:
            assert set(group.target) <= set(group.members)
            assert set(group._static.values()) <= set(group.members)
            held = sum(
                len(found)
                for member in group.members.values()
                for assignment in (member.current.assigned, member.current.revoking)
                for found in assignment.values()
            )
            assert sum(map(len, group._owners.values())) == held

    def teardown(self) -> None:
        if hasattr(self, "driven"):
            self._it_is_calm()

    def _it_is_calm(self) -> None:
        for client in self.clients:
            client.is_hung = client.is_slow = False
        for _ in range(CALM_ROUNDS):
            for client in self.clients:
                self._ask(client)
                self._hear(client)
            self._pass_time(HEARTBEAT_MS, beat=False)
        if not any(not client.is_classic for client in self.clients):
            return
        group = self.driven.group()
        assert group.state is ConsumerGroupState.STABLE, self.driven.registry.consumer.describe("g")
        assert set(group.members) == {client.member_id for client in self.clients}
        by_subscription: dict[frozenset[str], list[int]] = {}
        wanted: set[tuple[str, int]] = set()
        owned: set[tuple[str, int]] = set()
        for client in self.clients:
            names = self._names(client)
            own = self.driven.named(client.owned)
            assert own == self.driven.target(client.member_id)
            assert {name for name, _ in own} <= names
            by_subscription.setdefault(frozenset(names), []).append(len(own))
            wanted |= {(name, p) for name in names for p in range(self.driven.topics.by_name[name].partitions)}
            owned |= own
        assert owned == wanted
        for counts in by_subscription.values():
            assert max(counts) - min(counts) <= 1

    def _names(self, client: Client) -> set[str]:
        names, regex = client.subscription
        found = set(names) & self.driven.topics.names
        known = {".": {"t", "u"}, "t|vv": {"t", "vv"}, "u": {"u"}, None: set()}[regex]
        return found | (known & self.driven.topics.names)

    # --- a consumer's life --------------------------------------------------------------------------------------------

    def _members(self) -> list[Client]:
        """Clients that the coordinator takes for members."""
        if "g" not in self.driven.registry.consumer:
            return []
        known = self.driven.group().members
        return [client for client in self.clients if client.epoch > 0 and client.member_id in known]

    def _ask(self, client: Client, *, is_lost: bool = False) -> None:
        if client.is_hung or client.answer is not None:
            return
        if client.is_classic:
            self._ask_classic(client, is_lost)
            return
        names, regex = client.subscription
        is_full = client.says_all or client.epoch == 0
        client.says_all = False
        client.answer = self.driven.registry.consumer_heartbeat(
            HeartbeatRequest(
                group_id="g",
                member_id=client.member_id,
                member_epoch=client.epoch,
                client_id="client",
                client_host="/127.0.0.1",
                instance_id=client.instance,
                rebalance_timeout_ms=REBALANCE_MS if is_full else -1,
                topic_names=names if is_full else None,
                topic_regex=(regex or "") if is_full else None,
                owned=client.owned,
            ),
            self.driven.now_ms,
        )
        self.driven.store()

    def _ask_classic(self, client: Client, is_lost: bool) -> None:
        """A cooperative consumer's next request; it is answered at once or not at all."""
        if "g" not in self.driven.registry.consumer or not self.driven.group().members:
            client.forget()  # it would begin a classic group
            return
        error = E.NONE
        if client.phase == "join" and not client.is_slow:
            owned = self.driven.named(client.owned)
            joined = self.driven.classic_join(client.member_id, client.subscription[0], owned=owned)
            assert joined is not None
            error = GroupError(joined.error_code)
            if not is_lost and not error:
                client.member_id, client.epoch, client.phase = joined.member_id, joined.generation_id, "sync"
        elif client.phase == "sync":
            synced = self.driven.classic_sync(client.member_id, client.epoch)
            assert synced is not None
            error = GroupError(synced.error_code)
            if not is_lost and not error:
                given = partitions_of(decode_assignment(synced.assignment), self.driven.topics)
                client.phase = "join" if difference(client.owned, given) else "member"
                client.owned = given
        elif client.phase == "member":
            error = self.driven.classic_heartbeat(client.member_id, client.epoch)
        if error is E.REBALANCE_IN_PROGRESS:
            client.phase = "join"
        elif error and not is_lost:
            assert error in (E.UNKNOWN_MEMBER_ID, E.ILLEGAL_GENERATION), error
            client.forget()
            client.member_id = ""

    def _hear(self, client: Client) -> None:
        answer, client.answer = client.answer, None
        if answer is None:
            return
        if answer.error_code == E.UNRELEASED_INSTANCE_ID:
            client.says_all = True
        elif answer.error_code:
            assert answer.error_code in (E.FENCED_MEMBER_EPOCH, E.UNKNOWN_MEMBER_ID, E.GROUP_ID_NOT_FOUND), answer
            client.forget()
            self.made += 1
            client.member_id = f"m{self.made}"
        else:
            client.epoch = answer.member_epoch
            if answer.assignment is not None:
                client.given = answer.assignment
        if client.is_slow:
            return
        client.owned = client.given

    def _pass_time(self, milliseconds: int, *, beat: bool = True) -> None:
        while milliseconds > 0:
            step = min(milliseconds, HEARTBEAT_MS)
            self.driven.pass_time(step)
            milliseconds -= step
            for client in self.clients if beat else ():
                self._ask(client)
                self._hear(client)


TestGroupsUnderFire = GroupsUnderFire.TestCase
TestGroupsUnderFire.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
