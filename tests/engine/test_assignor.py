"""Which worker gets which stream tasks: balanced, and little is moved."""

from hypothesis import given
from hypothesis import strategies as st

from streamcore.engine.assignor import Claim, assign, owners_of, plan

weights = st.lists(st.integers(1, 4), max_size=40)


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[int], dict[str, Claim]]:
    """Tasks with their weights, and members who claim some of them, now and then the same ones or unknown ones."""
    costs = draw(weights)
    tasks = st.frozensets(st.integers(0, max(0, len(costs) + 2)))
    members = draw(st.integers(1, 8))
    return costs, {f"m{number}": Claim(draw(tasks), draw(st.integers(-1, 3)), draw(tasks)) for number in range(members)}


def loads(costs: list[int], shares: dict[str, set[int]]) -> list[int]:
    return [sum(costs[task] for task in tasks) for tasks in shares.values()]


@given(groups())
def test_every_task_has_one_place_and_no_move_would_even_things_out(group: tuple[list[int], dict[str, Claim]]) -> None:
    costs, claims = group
    shares = plan(costs, claims)
    assert sorted(task for tasks in shares.values() for task in tasks) == list(range(len(costs)))
    assert shares.keys() == claims.keys()
    low = min(loads(costs, shares))
    for tasks, load in zip(shares.values(), loads(costs, shares), strict=True):
        assert all(costs[task] >= load - low for task in tasks)


@given(groups())
def test_a_task_is_never_given_to_one_while_another_runs_it(group: tuple[list[int], dict[str, Claim]]) -> None:
    costs, claims = group
    owners = owners_of(len(costs), claims)
    for member, tasks in assign(costs, claims).items():
        assert all(owners.get(task, member) == member for task in tasks)


@given(groups())
def test_after_what_was_taken_is_given_up_the_next_generation_is_the_plan_and_stays(
    group: tuple[list[int], dict[str, Claim]],
) -> None:
    costs, claims = group
    for generation in range(4, 7):
        shares = assign(costs, claims)
        claims = {member: Claim(frozenset(tasks), generation) for member, tasks in shares.items()}
    assert sorted(task for tasks in shares.values() for task in tasks) == list(range(len(costs)))
    assert shares == plan(costs, claims)


@given(st.integers(1, 60), st.integers(1, 9))
def test_a_worker_that_comes_takes_no_more_than_its_share(tasks: int, members: int) -> None:
    costs = [1] * tasks
    claims = {f"m{number}": Claim() for number in range(members)}
    before = plan(costs, claims)
    after = plan(costs, {**{m: Claim(frozenset(t), 1) for m, t in before.items()}, "new": Claim()})
    moved = sum(len(before[member] - after[member]) for member in before)
    assert moved == len(after["new"]) == tasks // (members + 1)


@given(st.integers(1, 60), st.integers(2, 9))
def test_when_a_worker_goes_only_its_tasks_move(tasks: int, members: int) -> None:
    costs = [1] * tasks
    before = plan(costs, {f"m{number}": Claim() for number in range(members)})
    rest = {member: Claim(frozenset(share), 1) for member, share in before.items() if member != "m0"}
    after = plan(costs, rest)
    assert all(before[member] <= after[member] for member in rest)


def test_of_two_who_claim_a_task_the_one_of_the_later_generation_has_it() -> None:
    claims = {"a": Claim(frozenset({0}), 7), "b": Claim(frozenset({0}), 6)}
    assert owners_of(1, claims) == {0: "a"}


def test_a_free_task_goes_where_its_tables_are() -> None:
    claims = {"a": Claim(stored=frozenset({2, 3})), "b": Claim(stored=frozenset({0, 1}))}
    assert plan([1, 1, 1, 1], claims) == {"a": {2, 3}, "b": {0, 1}}


def test_more_workers_than_tasks_leaves_some_with_none() -> None:
    shares = plan([1, 1], {name: Claim() for name in "abcd"})
    assert sorted(map(len, shares.values())) == [0, 0, 1, 1]


def test_a_task_with_more_topics_weighs_more() -> None:
    shares = plan([3, 1, 1, 1], {"a": Claim(), "b": Claim()})
    assert sorted(loads([3, 1, 1, 1], shares)) == [3, 3]
