"""What is done, where several events are in flight at once."""

from hypothesis import given
from hypothesis import strategies as st

from streamcore.engine.progress import Progress


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.randoms(use_true_random=False), st.integers(1, 8))
def test_the_position_is_the_first_offset_that_is_not_done(gaps: list[int], fate: object, width: int) -> None:
    """Offsets with gaps, handed out in order and done in any order, at most `width` at once."""
    random = fate
    offsets = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    progress = Progress(0)
    waiting, out, done = list(offsets), [], set()
    before = progress.position
    while waiting or out:
        if waiting and len(out) < width and (not out or random.random() < 0.5):  # type: ignore[attr-defined]
            out.append(waiting.pop(0))
            progress.hand_out(out[-1])
        else:
            offset = out.pop(random.randrange(len(out)))  # type: ignore[attr-defined]
            done.add(offset)
            progress.done(offset)
        assert progress.in_flight == len(out)
        if out:
            assert progress.position == min(out), "never beyond an event in flight, and not behind one that is done"
        else:
            assert progress.position == max(done) + 1
        assert progress.position >= before, "it never goes back"
        before = progress.position
    assert progress.position == offsets[-1] + 1
    assert progress.in_flight == 0


def test_before_the_first_event_it_stands_where_it_began() -> None:
    progress = Progress(17)
    assert (progress.position, progress.in_flight) == (17, 0)
    progress.hand_out(20)
    assert progress.position == 20
