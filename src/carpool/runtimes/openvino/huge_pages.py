"""Huge pages: a step of few tokens reads every weight once, and page-table walks are a tenth of that.

OpenVINO and oneDNN allocate in pieces that are too small or too crooked for malloc's own huge pages.
"""

import ctypes
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MADV_HUGEPAGE, _MADV_POPULATE_WRITE, _MADV_COLLAPSE = 14, 23, 25
"""Linux's, the last two since 5.14 and 6.1; others answer with an error, and nothing changes."""
_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_MAPS = Path("/proc/self/maps")
_ANONYMOUS = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ 00:00 0\s*(?:\[heap\])?")


def collapse() -> None:
    """Move what the process holds in memory of its own to huge pages, where the system has them.

    For the moment when a model has been loaded and has run once; what that has freed goes back to the system
    first. Untouched memory stays untouched, but for the rest of a huge page in use. Copies at the speed of
    memory; releases the GIL.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
    try:
        size = int(_SIZE.read_text())
        mappings = _MAPS.read_text()
    except OSError:
        return
    madvise = library.madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for begin, end in _aligned(mappings, size):
        madvise(begin, end - begin, _MADV_COLLAPSE)


def _aligned(mappings: str, size: int) -> Iterator[tuple[int, int]]:
    """The whole huge pages in each anonymous, private, writable mapping of a `/proc/self/maps`."""
    for line in mappings.splitlines():
        match = _ANONYMOUS.fullmatch(line)
        if match is not None:
            begin = -(-int(match[1], 16) // size) * size
            end = int(match[2], 16) // size * size
            if begin < end:
                yield begin, end


def zeros(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes, aligned to a page, which the system has given before any is touched.

    On a virtual machine, first touches may take the host longer than the step that they happen in.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in (_MADV_HUGEPAGE, _MADV_POPULATE_WRITE):
        with suppress(OSError):
            memory.madvise(advice)
    return np.frombuffer(memory, np.uint8)
