"""Deadlines of many keys against a dictionary of them."""

from hypothesis import given
from hypothesis import strategies as st

from processors.agenda import Agenda


@given(
    st.lists(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.integers(0, 50))
        | st.tuples(st.just("remove"), st.sampled_from("abcd"), st.just(0))
        | st.tuples(st.just("pop"), st.just(""), st.integers(0, 60))
    )
)
def test_keys_come_up_in_the_order_of_their_deadlines(steps: list[tuple[str, str, int]]) -> None:
    agenda = Agenda()
    deadlines: dict[str, int] = {}
    for verb, key, time_ms in steps:
        if verb == "put":
            agenda.put(key, time_ms)
            deadlines[key] = time_ms
        elif verb == "remove":
            agenda.remove(key)
            deadlines.pop(key, None)
        else:
            popped: list[tuple[int, str]] = []
            while (entry := agenda.pop(time_ms)) is not None:
                entry_ms, key = entry
                assert entry_ms <= deadlines[key]
                if deadlines[key] > entry_ms:
                    agenda.put(key, deadlines[key])
                else:
                    popped.append((deadlines.pop(key), key))
            assert popped == sorted(popped)
            assert all(left_ms >= time_ms for left_ms in deadlines.values())
        next_ms = agenda.next_ms()
        assert (next_ms is None) == (not deadlines)
        assert next_ms is None or next_ms <= min(deadlines.values())


def test_a_deadline_that_moves_later_again_and_again_takes_one_place() -> None:
    agenda = Agenda()
    for time_ms in range(1000):
        agenda.put("a", time_ms)
    assert len(agenda._heap) == len(agenda) == 1
