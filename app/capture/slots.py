"""The buffers through which raw blocks travel: a fixed number of them.

A block of zeros needs no buffer to wait in: a *stand-in* waits for it, and most of a guest's memory can be zeros.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import queue
from dataclasses import dataclass

from app.capture.codecs import BLOCK_BYTES

_MADV_POPULATE_WRITE = 23  # Linux 5.14
_memcmp = ctypes.CDLL(None).memcmp  # ctypes releases the GIL around it
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
STAND_INS = 4096
"""Blocks of zeros that may wait beside the buffers: 4 GiB, whose hash takes a few seconds."""
_ZERO_BYTES = bytes(BLOCK_BYTES)


@dataclass(slots=True, eq=False)
class Slot:
    """One raw block on its way. ``buffer`` has ``BLOCK_BYTES``, of which the first ``length`` count; ``blank``: all zeros."""

    home: queue.Queue[Slot]
    buffer: memoryview
    address: int = 0
    length: int = 0
    blank: bool = False

    def give_back(self) -> None:
        """Its block has been dealt with."""
        self.home.put(self)


class Slots:
    """``count`` buffers, and stand-ins for blocks of zeros."""

    def __init__(self, count: int) -> None:
        # The last one given back is taken first: while zeros are read it is the same one, which the processor has in its cache.
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        self._stand_ins: queue.LifoQueue[Slot] = queue.LifoQueue()
        self._memory = mmap.mmap(-1, count * BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        view = memoryview(self._memory)
        for start in range(0, count * BLOCK_BYTES, BLOCK_BYTES):
            self._free.put(Slot(self._free, view[start : start + BLOCK_BYTES], address + start))
        zeros = memoryview(_ZERO_BYTES)
        for _ in range(STAND_INS):
            self._stand_ins.put(Slot(self._stand_ins, zeros, length=BLOCK_BYTES, blank=True))

    def fault_in(self) -> None:
        """Have all of the memory there: a page fault later on would be paid for by a guest that stands still.

        Not in huge pages: these make nothing faster here, and a virtual machine that gave them back to its host waits for them.
        """
        with contextlib.suppress(OSError):  # an older kernel: slower, not wrong
            self._memory.madvise(_MADV_POPULATE_WRITE)

    def take(self, at_most_sec: float) -> Slot:
        """A buffer to fill. Raises ``queue.Empty`` if none is given back in time."""
        return self._free.get(timeout=at_most_sec)

    def left(self) -> int:
        """How many buffers are free at this moment."""
        return self._free.qsize()

    def filled(self, slot: Slot, length: int) -> Slot:
        """What goes on for a buffer that has got ``length`` bytes: it itself, or the stand-in for its zeros."""
        slot.length = length
        if length == BLOCK_BYTES and _memcmp(slot.address, _ZERO_BYTES, BLOCK_BYTES) == 0:  # ends at the first byte that is not 0
            with contextlib.suppress(queue.Empty):
                stand_in = self._stand_ins.get_nowait()
                slot.give_back()
                return stand_in
        return slot
