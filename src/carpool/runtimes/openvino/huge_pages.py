"""Huge pages: a step of few tokens reads every weight once, and page-table walks are a tenth of that.

OpenVINO and oneDNN allocate in pieces that are too small or too crooked for malloc's own huge pages. Their
code lies in small pages of a file, and each layer needs it anew, after all of its weights went by. A virtual
machine has two tables to walk.
"""

import ctypes
import errno
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MADV_HUGEPAGE, _MADV_POPULATE_WRITE, _MADV_COLLAPSE = 14, 23, 25
"""Linux's, the last two since 5.14 and 6.1; others answer with an error, and nothing changes."""
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FAILED = ctypes.c_void_p(-1).value
_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_MAPS = Path("/proc/self/maps")
_ANONYMOUS = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ 00:00 0\s*(?:\[heap\])?")
_CODE = re.compile(
    r"([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ \d+\s+"
    r"/(?:.*/)?(?:libopenvino|_pyopenvino|_multiarray_umath)[^/]*\.so[^/]*"
)
"""Of OpenVINO and NumPy, by the files' names: installers may link to files that lie elsewhere."""
_MOST_REFUSALS = 8
"""Huge pages one after the other that the system has no memory for, until no more are asked for."""


def collapse() -> None:
    """Move the process's own memory, and the code that computes, to huge pages, where the system has them.

    For the moment when a model has been loaded and has run once; what that has freed goes back to the system
    first. Untouched memory stays untouched, but for the rest of a huge page that is half in use. The code of
    OpenVINO and NumPy becomes a copy of the process's own, about 65 MB, in which profilers such as perf find
    no names. Copies at the speed of memory; releases the GIL.
    """
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    try:
        huge_page = int(_SIZE.read_text())
        mappings = _MAPS.read_text()
    except OSError:
        return
    for begin, end in _aligned(mappings, huge_page, _CODE):
        if not _move_code(libc, begin, end - begin, huge_page):
            break  # what one library is refused, the others are
    refusals = 0
    for begin, end in _aligned(mappings, huge_page, _ANONYMOUS):
        # One by one: some that cannot move, as while they are in use, end it for the rest of a range.
        for address in _in_use(libc, begin, end, huge_page):
            is_moved = libc.madvise(address, huge_page, _MADV_COLLAPSE) == 0
            is_refused = not is_moved and ctypes.get_errno() in {errno.ENOMEM, errno.EBUSY}
            refusals = refusals + 1 if is_refused else 0
            if refusals == _MOST_REFUSALS:
                return


def _libc() -> ctypes.CDLL:
    """The C library, with the types of what is called of it."""
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes, libc.mmap.restype = (address, size, number, number, number, ctypes.c_long), address
    libc.munmap.argtypes = (address, size)
    libc.mincore.argtypes = (address, size, address)
    libc.madvise.argtypes = libc.mprotect.argtypes = (address, size, number)
    libc.mremap.argtypes, libc.mremap.restype = (address, size, size, number, address), address
    return libc


def _aligned(mappings: str, huge_page: int, kind: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """The whole huge pages in each mapping of a kind, of a `/proc/self/maps`."""
    for line in mappings.splitlines():
        match = kind.fullmatch(line)
        if match is not None:
            begin = -(-int(match[1], 16) // huge_page) * huge_page
            end = int(match[2], 16) // huge_page * huge_page
            if begin < end:
                yield begin, end


def _in_use(libc: ctypes.CDLL, begin: int, end: int, huge_page: int) -> Iterator[int]:
    """The huge pages of a mapping that have memory for at least half of their small pages."""
    small_pages = huge_page // mmap.PAGESIZE
    are_there = np.zeros(((end - begin) // huge_page, small_pages), np.uint8)
    if libc.mincore(begin, end - begin, are_there.ctypes.data) != 0:
        are_there[:] = 1  # the kernel looks for itself whether there is anything to move
    counts = np.count_nonzero(are_there & 1, axis=1)
    yield from (begin + huge_page * np.flatnonzero(2 * counts >= small_pages)).tolist()


def _move_code(libc: ctypes.CDLL, code: int, size: int, huge_page: int) -> bool:
    """Put a copy in huge pages in the place of code that may be running; whether that was possible.

    To other threads it happens at once: who gets into the middle of it waits for the kernel's lock on the
    process's mappings. Systems that forbid code in memory that was written to have it stay in its file.
    """
    room = libc.mmap(None, size + huge_page, mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE, -1, 0)
    if room == _FAILED:
        return False
    copy = -(-room // huge_page) * huge_page
    libc.munmap(copy + size, room + huge_page - copy)
    if copy > room:
        libc.munmap(room, copy - room)
    libc.madvise(copy, size, _MADV_HUGEPAGE)
    ctypes.memmove(copy, code, size)
    is_moved = (
        libc.madvise(copy, size, _MADV_COLLAPSE) == 0  # all of it is in huge pages now
        and libc.mprotect(copy, size, mmap.PROT_READ | mmap.PROT_EXEC) == 0
        # Twice: a failure late in it would leave nothing in the code's place.
        and any(
            libc.mremap(copy, size, size, _MREMAP_MAYMOVE | _MREMAP_FIXED, code) == code for _ in range(2)
        )
    )
    if not is_moved:
        libc.munmap(copy, size)
    return is_moved


def zeros(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes, aligned to a page, which the system has given before any is touched.

    On a virtual machine, first touches may take the host longer than the step that they happen in.
    """
    memory = mmap.mmap(-1, size, flags=_PRIVATE)
    for advice in (_MADV_HUGEPAGE, _MADV_POPULATE_WRITE):
        with suppress(OSError):
            memory.madvise(advice)
    return np.frombuffer(memory, np.uint8)
