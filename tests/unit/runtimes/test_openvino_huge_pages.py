import ctypes
import errno
import gc
import mmap
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from carpool.runtimes.openvino import huge_pages

HUGE = 2 << 20
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def bytes_in_huge_pages(address: int) -> int:
    return bytes_in(address, "AnonHugePages:")


def bytes_in(address: int, kind: str) -> int:
    """Of the mapping that an address lies in."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            found = int(match[1], 16) <= address < int(match[2], 16)
        elif found and line.startswith(kind):
            return int(line.split()[1]) << 10
    raise AssertionError("no such mapping")


def bytes_resident(address: int) -> int:
    return bytes_in(address, "Rss:")


def zeros_in_a_mapping_of_their_own(size: int) -> NDArray[np.uint8]:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_DONTFORK)  # other mappings do not have it, so none becomes one with this
    return np.frombuffer(memory, np.uint8)


@pytest.fixture
def has_huge_pages() -> None:
    """Skips where this system moves nothing to huge pages."""
    if not ENABLED.exists() or "[madvise]" not in ENABLED.read_text():
        pytest.skip("this system has no huge pages, or gives them to all who touch memory")
    memory = mmap.mmap(-1, 2 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = b"x" * (2 * HUGE)
    try:
        memory.madvise(25)
    except OSError as error:
        pytest.skip(f"this kernel collapses nothing: {error}")


@pytest.mark.usefixtures("has_huge_pages")
def test_memory_in_use_moves_to_huge_pages_and_keeps_what_it_holds() -> None:
    values = zeros_in_a_mapping_of_their_own(8 * HUGE)
    used = values[: 4 * HUGE]
    used[:] = np.arange(used.size) % 251
    assert bytes_in_huge_pages(values.ctypes.data + 2 * HUGE) == 0
    huge_pages.collapse()
    # Where the mapping begins inside a huge page, that one stays as it is.
    assert 3 * HUGE <= bytes_in_huge_pages(values.ctypes.data + 2 * HUGE) <= 5 * HUGE
    assert np.array_equal(used, np.arange(used.size) % 251)
    assert not values[4 * HUGE :].any()


@pytest.mark.usefixtures("has_huge_pages")
def test_what_is_less_than_half_in_use_stays_as_small_as_it_is() -> None:
    values = zeros_in_a_mapping_of_their_own(8 * HUGE)
    begin = -values.ctypes.data % HUGE
    for number, share in enumerate((0.4, 0.6, 0.4, 1)):
        values[begin + number * HUGE :][: int(share * HUGE)] = 1
    huge_pages.collapse()
    address = values.ctypes.data + begin
    assert bytes_in_huge_pages(address) == 2 * HUGE
    assert bytes_resident(address) == pytest.approx(2.8 * HUGE, abs=HUGE / 10)


MOVES_CODE = """
import re
import threading
import numpy as np
import openvino as ov
from openvino import opset15 as ops
from carpool.runtimes.openvino import huge_pages
libc = huge_pages._libc()
{change}
huge_pages._libc = lambda: libc

def whole_pages(kind):
    size = int(huge_pages._SIZE.read_text())
    return set(huge_pages._aligned(huge_pages._MAPS.read_text(), size, kind))

x = ops.parameter([-1], np.float32)
model = ov.Core().compile_model(ov.Model([ops.exp(x)], [x], "exp"), "CPU")
numbers = np.arange(9, dtype=np.float32)
expected = model(numbers)[0].copy()
all_equal, is_moved = [], threading.Event()

def infer():
    request = model.create_infer_request()
    is_last, are_equal = False, True
    while not is_last:
        is_last = is_moved.is_set()
        are_equal &= (request.infer([numbers])[0] == expected).all()
    all_equal.append(are_equal)

def writable():
    return sum(end - begin for begin, end in whole_pages(huge_pages._ANONYMOUS))

there = whole_pages(huge_pages._CODE)
threads = [threading.Thread(target=infer) for _ in range(2)]
for each in threads:
    each.start()
before = writable()
for _ in range(3):
    huge_pages.collapse()
grown = writable() - before
is_moved.set()
for each in threads:
    each.join()
assert all_equal == [True, True], all_equal
left = whole_pages(huge_pages._CODE)
copies = whole_pages(re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-xp 00000000 00:00 0\\s*"))
for begin, end in there - left:
    assert any(first <= begin and end <= last for first, last in copies)
print(len(there), len(left), grown)
"""


@pytest.mark.usefixtures("has_huge_pages")
@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ("", True),
        ("libc.mprotect = lambda *_: -1", False),
        ("libc.mremap = lambda *_: -1", False),
        ("libc.mmap = lambda *_: huge_pages._FAILED", False),
        ("huge_pages._MADV_COLLAPSE = 999  # which no kernel knows", False),
    ],
)
def test_code_moves_while_it_is_in_use_or_stays_where_it_is(change: str, *, moves: bool) -> None:
    run = [sys.executable, "-c", MOVES_CODE.format(change=change)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after, grown = map(int, done.stdout.split())
    assert before > 0
    assert after == (0 if moves else before)
    assert grown < 8 * HUGE  # a copy that found no place would be larger


@pytest.mark.parametrize(
    ("path", "is_moved"),
    [
        ("/venv/openvino/libs/libopenvino_intel_cpu_plugin.so", True),
        ("/a cache/x/libopenvino.so.2641", True),
        ("/v/openvino/_pyopenvino.cpython-311-x86_64-linux-gnu.so (deleted)", True),
        ("/v/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so", True),
        ("/v/numpy.libs/libscipy_openblas64_-32a4b2a6.so", False),
        ("/v/openvino/libs/libtbb.so.12", False),
        ("/libopenvino.so.d/python3.11", False),
    ],
)
def test_the_code_of_some_libraries_is_moved(path: str, *, is_moved: bool) -> None:
    line = f"00300000-00900000 r-xp 00311000 fe:00 5318521                    {path}"
    found = list(huge_pages._aligned(line, HUGE, huge_pages._CODE))
    assert found == ([(0x400000, 0x800000)] if is_moved else [])
    assert not list(huge_pages._aligned(line.replace("r-xp", "r--p"), HUGE, huge_pages._CODE))


def test_a_system_that_has_no_more_huge_pages_is_not_asked_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = huge_pages._libc()
    asked = []

    def refuse(address: int, _size: int, _advice: int) -> int:
        asked.append(address)
        ctypes.set_errno(errno.ENOMEM)
        return -1

    monkeypatch.setattr(libc, "madvise", refuse)
    monkeypatch.setattr(libc, "mmap", lambda *_: huge_pages._FAILED)
    monkeypatch.setattr(huge_pages, "_libc", lambda: libc)
    values = zeros_in_a_mapping_of_their_own(32 * HUGE)
    values[:] = 1
    huge_pages.collapse()
    assert len(asked) == huge_pages._MOST_REFUSALS


def test_a_system_without_huge_pages_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huge_pages, "_SIZE", tmp_path / "missing")
    huge_pages.collapse()


def test_only_whole_huge_pages_of_anonymous_writable_memory_are_moved() -> None:
    mappings = """\
00100000-00700000 rw-p 00000000 00:00 0
00800000-00c00000 rw-p 00000000 00:00 0                          [heap]
01000000-01400000 r--p 00000000 00:00 0
01800000-01c00000 rw-p 00000000 fe:00 1234                       /lib/some.so
02000000-02400000 rw-s 00000000 00:01 7                          /dev/zero (deleted)
02900000-02a00000 rw-p 00000000 00:00 0
7ff000000000-7ff000800000 rw-p 00000000 00:00 0                  [stack]
"""
    found = list(huge_pages._aligned(mappings, HUGE, huge_pages._ANONYMOUS))
    assert found == [(0x200000, 0x600000), (0x800000, 0xC00000)]


def test_zeroed_memory_lives_as_long_as_its_array() -> None:
    memory = huge_pages.zeros(3 * HUGE + 5)
    gc.collect()
    assert memory.size == 3 * HUGE + 5
    assert memory.ctypes.data % mmap.PAGESIZE == 0
    assert bytes_resident(memory.ctypes.data) >= memory.size - HUGE
    assert not memory.any()
    memory[-1] = 7
    assert memory[-1] == 7


def test_memory_is_there_without_huge_pages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "_MADV_HUGEPAGE", 999)  # which no kernel knows
    memory = huge_pages.zeros(3 * HUGE)
    assert bytes_resident(memory.ctypes.data) >= 3 * HUGE
