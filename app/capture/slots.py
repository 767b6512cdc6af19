"""The buffers through which raw blocks travel: a fixed number of them, made before the guest is touched.

They lie in one piece of memory in huge pages, all of it there from the beginning: a page fault, or a look-up in page tables
that missed, would be paid for by a guest that stands still.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from dataclasses import dataclass

from app.capture.codecs import BLOCK_BYTES

_MADV_POPULATE_WRITE = 23  # Linux 5.14
_memcmp = ctypes.CDLL(None).memcmp  # ctypes releases the GIL around it
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_ZEROS = bytes(BLOCK_BYTES)


@dataclass(slots=True, eq=False)
class Slot:
    """One raw block on its way. ``buffer`` has ``BLOCK_BYTES``, of which the first ``length`` count."""

    buffer: memoryview
    address: int
    length: int = 0

    def is_blank(self) -> bool:
        """Whether it is a full block of zeros; ends at the first byte that is not."""
        return self.length == BLOCK_BYTES and _memcmp(self.address, _ZEROS, BLOCK_BYTES) == 0


def make_slots(count: int) -> list[Slot]:
    """``count`` slots."""
    memory = mmap.mmap(-1, count * BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in (mmap.MADV_HUGEPAGE, _MADV_POPULATE_WRITE):
        with contextlib.suppress(OSError):  # an older kernel, or one without huge pages: slower, not wrong
            memory.madvise(advice)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    view = memoryview(memory)
    starts = range(0, count * BLOCK_BYTES, BLOCK_BYTES)
    return [Slot(view[start : start + BLOCK_BYTES], address + start) for start in starts]
