"""The buffers of a capture: zeros wait in none."""

import queue

import pytest

from app.capture.codecs import BLOCK_BYTES
from app.capture.slots import STAND_INS, Slots


def test_a_block_of_zeros_gives_its_buffer_back_at_once() -> None:
    slots = Slots(1)
    for _ in range(10):
        buffer = slots.take(0)
        buffer.buffer[:] = bytes(BLOCK_BYTES)
        zeros = slots.filled(buffer, BLOCK_BYTES)
        assert zeros.blank
        assert bytes(zeros.buffer[: zeros.length]) == bytes(BLOCK_BYTES)


@pytest.mark.parametrize("at", [0, BLOCK_BYTES // 2, BLOCK_BYTES - 1])
def test_one_byte_makes_a_block_wait_in_its_buffer(at: int) -> None:
    slots = Slots(1)
    buffer = slots.take(0)
    buffer.buffer[:] = bytes(BLOCK_BYTES)
    buffer.buffer[at] = 1
    block = slots.filled(buffer, BLOCK_BYTES)
    assert block is buffer
    assert not block.blank
    with pytest.raises(queue.Empty):
        slots.take(0)


def test_a_short_block_waits_in_its_buffer() -> None:
    slots = Slots(1)
    buffer = slots.take(0)
    buffer.buffer[:] = bytes(BLOCK_BYTES)
    block = slots.filled(buffer, BLOCK_BYTES - 1)
    assert block is buffer
    assert block.length == BLOCK_BYTES - 1


def test_zeros_that_wait_are_bounded_too_and_come_round_again() -> None:
    slots = Slots(2)
    waiting = [slots.filled(slots.take(0), BLOCK_BYTES) for _ in range(STAND_INS)]
    assert all(block.blank for block in waiting)
    last = slots.filled(slots.take(0), BLOCK_BYTES)
    assert not last.blank
    for block in (last, *waiting):
        block.give_back()
    assert slots.filled(slots.take(0), BLOCK_BYTES).blank
