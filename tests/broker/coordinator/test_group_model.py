"""Consumers that come, die, hang, leave, restart and are slow at random, on a log that fails and a node that is killed.

Whatever happens: a generation has one leader, everybody in it was told the same, gets what the leader gave, and owns
what nobody else does; nobody waits longer than the timeouts allow; once things are calm, all who live share everything.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamcore.broker.coordinator.group_config import GroupConfig
from streamcore.broker.coordinator.group_messages import GroupError, JoinResult, SyncResult
from tests.broker.coordinator.group_support import DrivenGroups

E = GroupError
SESSION_MS, DELAY_MS = 10_000, 3000
CALM_STEPS = 120  # of a second each: more than two sessions and two rebalances of what is dead
PARTITIONS = 7
clients = st.integers(0, 5)


class Client:
    """A consumer as the clients' libraries write it: one request at a time, and it does what the answer says."""

    def __init__(self, instance: str | None, needs_id: bool, skip: bool) -> None:
        self.instance, self.needs_id, self.skip = instance, needs_id, skip
        self.is_alive = True
        self.is_hung = False  # its heart beats on, and it does nothing else any more
        self.topics = b"topics"
        self.forget()

    def forget(self) -> None:
        self.member_id = ""
        self.rejoin()

    def rejoin(self) -> None:
        self.phase = "join"
        self.ticket: int | None = None
        self.since_ms = 0
        self.generation_id = -1
        self.owned: list[int] = []
        self.to_assign: dict[str, bytes] = {}

    def key(self) -> str:
        """What its place in a generation is known by."""
        return self.instance or self.member_id


class GroupsUnderFire(RuleBasedStateMachine):
    @initialize(delay_ms=st.sampled_from([0, DELAY_MS]), rebalance_ms=st.sampled_from([4000, 15_000]))
    def begin(self, delay_ms: int, rebalance_ms: int) -> None:
        self.rebalance_ms = rebalance_ms  # shorter and longer than a session
        self.config = GroupConfig(group_initial_rebalance_delay_ms=delay_ms)
        self.driven = DrivenGroups(self.config)
        self.driven.writes_at_once = False
        self.clients: list[Client] = []
        self.leaders: dict[int, set[str]] = {}  # by generation: who was asked to assign
        self.protocols: dict[int, set[str | None]] = {}
        self.given: dict[int, dict[str, bytes]] = {}  # by generation: what the leader gave, by place

    # --- what consumers do ------------------------------------------------------------------------------------------

    @rule(
        instances=st.lists(st.sampled_from([None, None, "i", "j"]), min_size=1, max_size=3),
        needs_id=st.booleans(),
        skip=st.booleans(),
    )
    def clients_start(self, instances: list[str | None], needs_id: bool, skip: bool) -> None:
        for instance in instances:
            if len(self._alive) < 6:
                self.clients.append(Client(instance, needs_id, skip))
                self._step(self.clients[-1])

    @rule(number=clients)
    def a_client_goes_on(self, number: int) -> None:
        if self._alive:
            self._step(self._alive[number % len(self._alive)])

    @rule(times=st.integers(1, 8))
    def all_go_on(self, times: int) -> None:
        for _ in range(times):
            for client in self._alive:
                self._step(client)

    @rule(number=clients)
    def a_client_dies(self, number: int) -> None:
        if self._alive:
            self._alive[number % len(self._alive)].is_alive = False

    @precondition(lambda self: self._about_to_be_missed())
    @rule(number=clients)
    def a_client_hangs(self, number: int) -> None:
        missed = self._about_to_be_missed()
        client = missed[number % len(missed)]
        client.is_alive, client.is_hung = False, True

    def _about_to_be_missed(self) -> list[Client]:
        """Who has to sync or to join now; static ones are waited for while their hearts beat, as in Kafka."""
        awaited = {"CompletingRebalance": "sync", "PreparingRebalance": "member"}.get(self.driven.state)
        return [
            client
            for client in self._alive
            if client.phase == awaited and client.ticket is None and client.instance is None
        ]

    @rule(number=clients)
    def a_static_client_restarts(self, number: int) -> None:
        static = [client for client in self._alive if client.instance is not None]
        if static:
            old = static[number % len(static)]
            old.is_alive = False
            self.clients.append(Client(old.instance, old.needs_id, old.skip))
            self._step(self.clients[-1])

    @rule(number=clients)
    def a_client_leaves(self, number: int) -> None:
        if self._alive and self._alive[number % len(self._alive)].member_id:
            client = self._alive[number % len(self._alive)]
            client.is_alive = False
            self.driven.leave((client.member_id, client.instance))

    @rule(number=clients)
    def a_client_subscribes_to_something_else(self, number: int) -> None:
        if self._alive:
            client = self._alive[number % len(self._alive)]
            client.topics += b"+"
            client.rejoin()
            self._step(client)

    # --- what happens to them ---------------------------------------------------------------------------------------

    @rule(milliseconds=st.sampled_from([100, 1000, 3000, 9999, 10_000, 20_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.driven.settle()
        self._pass_time(milliseconds)
        self.driven.settle()

    @rule()
    def the_log_takes_what_is_written(self) -> None:
        self.driven.settle()

    @rule()
    def the_log_fails(self) -> None:
        self.driven.settle(E.COORDINATOR_NOT_AVAILABLE)

    @rule()
    def the_node_is_killed(self) -> None:
        old, self.driven = self.driven, DrivenGroups(self.config)
        self.driven.now_ms, self.driven._ids, self.driven._tickets = old.now_ms, old._ids, old._tickets
        self.driven.writes_at_once = False
        self.driven.log = old.log
        for write in old.log:
            self.driven.groups.restore(write.group_id, write.metadata)
        self.driven.groups.start(self.driven.now_ms)
        stored = max((write.metadata.generation_id for write in old.log if write.metadata), default=0)
        for told in (self.leaders, self.protocols, self.given):
            # Of a generation that was never stored nobody has got an assignment: it happens anew.
            for generation_id in [generation_id for generation_id in told if generation_id > stored]:
                del told[generation_id]
        for client in self.clients:
            client.ticket, client.is_hung = None, False
            if client.generation_id > stored:
                client.rejoin()

    @rule()
    def it_is_calm(self) -> None:
        for _ in range(CALM_STEPS):
            for client in self._alive:
                self._step(client)
            self.driven.settle()
            self._pass_time(1000)
            self.what_is_true_in_every_generation()
            if self._is_settled():
                break
        assert self._is_settled()
        if self._alive:
            assert sorted(partition for client in self._alive for partition in client.owned) == list(range(PARTITIONS))

    def _is_settled(self) -> bool:
        described = self.driven.groups.describe("g")
        if not self._alive:
            return described.state in ("Empty", "Dead")
        return (
            described.state == "Stable"
            and len({client.generation_id for client in self._alive}) == 1
            and all(client.phase == "member" for client in self._alive)
            and {member.member_id for member in described.members} == {client.member_id for client in self._alive}
        )

    # --- what must hold ---------------------------------------------------------------------------------------------

    @invariant()
    def what_is_true_in_every_generation(self) -> None:
        assert all(len(leaders) <= 1 for leaders in self.leaders.values()), self.leaders
        assert all(len(told) == 1 for told in self.protocols.values()), self.protocols
        owners: dict[tuple[int, int], set[str]] = {}
        for client in self._alive:
            for partition in client.owned:
                owners.setdefault((client.generation_id, partition), set()).add(client.key())
        assert all(len(keys) == 1 for keys in owners.values()), owners

    @invariant()
    def nobody_waits_longer_than_the_timeouts(self) -> None:
        for client in self.clients:
            if client.ticket is not None and self.driven.waits(client.ticket):
                assert self.driven.now_ms - client.since_ms <= self.rebalance_ms + DELAY_MS

    @invariant()
    def nothing_is_left_behind(self) -> None:
        groups = self.driven.groups
        assert groups._members_bytes == sum(group.members.size_bytes for group in groups._groups.values())
        for group in groups._groups.values():
            members = group.members
            assert members.joining == sum(member.join_ticket is not None for member in members)
            assert (members.leader in members) == (len(members) > 0)
            assert members.size_bytes == sum(member.size_bytes for member in members)
            assert group.wake_ms >= groups._deadlines._scheduled.get(group.group_id, group.wake_ms)

    def teardown(self) -> None:
        if hasattr(self, "driven"):
            self.it_is_calm()

    def _pass_time(self, milliseconds: int) -> None:
        while milliseconds > 0:
            for client in self.clients:
                if client.is_hung:
                    self.driven.heartbeat(client.member_id, client.generation_id, client.instance)
            self.driven.pass_time(min(milliseconds, 3000))
            milliseconds -= 3000

    # --- the consumer -----------------------------------------------------------------------------------------------

    @property
    def _alive(self) -> list[Client]:
        return [client for client in self.clients if client.is_alive]

    def _step(self, client: Client) -> None:
        if client.phase == "member":
            error = self.driven.heartbeat(client.member_id, client.generation_id, client.instance)
            if error:
                self._failed(client, error)
        elif client.ticket is None:
            client.since_ms = self.driven.now_ms
            client.ticket = self._join(client) if client.phase == "join" else self._sync(client)
        elif not self.driven.waits(client.ticket):
            ticket, client.ticket = client.ticket, None
            if client.phase == "join":
                self._joined(client, self.driven.joined(ticket))
            else:
                self._synced(client, self.driven.synced(ticket))
        elif client.phase == "sync":
            # Its heart beats in the background.
            self.driven.heartbeat(client.member_id, client.generation_id, client.instance)

    def _join(self, client: Client) -> int:
        return self.driven.join(
            client.member_id,
            instance=client.instance,
            session_ms=SESSION_MS,
            rebalance_ms=self.rebalance_ms,
            protocols=(("range", client.topics),),
            needs_id=client.needs_id,
            skip=client.skip,
        )

    def _sync(self, client: Client) -> int:
        return self.driven.sync(client.member_id, client.generation_id, client.to_assign, instance=client.instance)

    def _joined(self, client: Client, result: JoinResult) -> None:
        if result.error_code:
            if result.error_code == E.MEMBER_ID_REQUIRED:
                client.member_id = result.member_id
            self._failed(client, result.error_code)
            return
        client.member_id, client.generation_id, client.phase = result.member_id, result.generation_id, "sync"
        self.protocols.setdefault(result.generation_id, set()).add(result.protocol_name)
        if result.members and not result.skip_assignment:
            assert result.leader == result.member_id
            self.leaders.setdefault(result.generation_id, set()).add(result.member_id)
            keys = [member.group_instance_id or member.member_id for member in result.members]
            assert len(set(keys)) == len(keys)
            share = {key: bytes(range(number, PARTITIONS, len(keys))) for number, key in enumerate(sorted(keys))}
            self.given.setdefault(result.generation_id, share)
            client.to_assign = {member.member_id: share[key] for member, key in zip(result.members, keys, strict=True)}

    def _synced(self, client: Client, result: SyncResult) -> None:
        if result.error_code:
            self._failed(client, result.error_code)
            return
        assert result.assignment == self.given[client.generation_id][client.key()]
        client.owned = list(result.assignment)
        client.phase = "member"

    def _failed(self, client: Client, error: int) -> None:
        if error == E.FENCED_INSTANCE_ID:
            client.is_alive = False
        elif error == E.UNKNOWN_MEMBER_ID:
            client.forget()
        else:
            client.rejoin()


TestGroupsUnderFire = GroupsUnderFire.TestCase
TestGroupsUnderFire.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
