import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamcore.broker.receive_buffers import FIRST_BYTES, SPARE_BYTES, SPARES_MAX, ReceiveBuffers


@given(st.integers(2, 5 << 20), st.integers(20_000, 300_000), st.integers(0, SPARES_MAX))
@settings(deadline=None)
def test_a_frames_memory_keeps_what_has_come_and_is_long_enough_in_the_end(size: int, step: int, spares: int) -> None:
    buffers = ReceiveBuffers()
    for _ in range(spares):
        buffers.give_back(memoryview(bytearray(SPARE_BYTES)))
    have = min(step, size - 1)
    memory = buffers.take(size, have)
    memory[:have] = b"a" * have
    while have < size:
        if have == len(memory):
            memory = buffers.grown(memory, size)
        assert len(memory) > have
        came = min(step, min(size, len(memory)) - have)
        memory[have : have + came] = b"a" * came
        have += came
    assert memory[:size] == b"a" * size


def test_a_size_alone_costs_nothing() -> None:
    assert len(ReceiveBuffers().take(100 << 20, 10)) == FIRST_BYTES


@pytest.mark.parametrize("size", [SPARE_BYTES, FIRST_BYTES + 1])
def test_memory_is_used_again(size: int) -> None:
    buffers = ReceiveBuffers()
    memory = buffers.grown(buffers.take(size, 10), size)
    buffers.give_back(memoryview(memory)[:size])
    assert buffers.take(size, 10) is memory
    assert buffers.take(size, 10) is not memory


def test_spare_memory_is_bounded() -> None:
    buffers = ReceiveBuffers()
    given_back = [bytearray(SPARE_BYTES) for _ in range(2 * SPARES_MAX)] + [bytearray(SPARE_BYTES + 1)]
    for memory in given_back:
        buffers.give_back(memoryview(memory))
    taken = [buffers.take(SPARE_BYTES, 1) for _ in range(3 * SPARES_MAX)]
    assert sum(any(memory is given for given in given_back) for memory in taken) == SPARES_MAX
