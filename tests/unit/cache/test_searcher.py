import asyncio
import threading

import numpy as np
import pytest

from carpool.cache import searcher as module
from carpool.cache.index import VectorIndex, Vectors, normalised
from carpool.cache.searcher import Searcher


class HeldIndex(VectorIndex):
    """Records how many queries each search took; the first waits until it may go."""

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions)
        self.sizes: list[int] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def search(self, vectors: Vectors, floor: float, limit: int) -> list[list[tuple[bytes, float]]]:
        self.sizes.append(len(vectors))
        self.begun.set()
        assert self.go.wait(30)
        if floor > 1:
            raise RuntimeError("broken")
        return super().search(vectors, floor, limit)


def filled(index: VectorIndex, seed: int = 0) -> Vectors:
    """Give an index twenty vectors."""
    vectors = np.random.default_rng(seed).normal(size=(20, 8)).astype(np.float32)
    for row, vector in enumerate(vectors):
        index.add(bytes([row]), normalised(vector))
    return np.stack([normalised(vector) for vector in vectors])


async def begun(index: HeldIndex) -> None:
    assert await asyncio.to_thread(index.begun.wait, 30)


@pytest.fixture
def in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INLINE_WORK", 0)


async def test_small_searches_are_done_at_once() -> None:
    index, searcher = VectorIndex(8), Searcher(3)
    vectors = filled(index)
    coroutine = searcher.nearest(index, vectors[4], 0.9)
    with pytest.raises(StopIteration) as found:
        coroutine.send(None)  # without waiting for anything
    assert found.value.value[0][0] == bytes([4])
    searcher.close()


@pytest.mark.usefixtures("in_thread")
async def test_those_who_wait_are_searched_together_and_get_their_own() -> None:
    index, searcher = HeldIndex(8), Searcher(3)
    vectors = filled(index)
    first = asyncio.create_task(searcher.nearest(index, vectors[0], 0.9))
    await begun(index)
    tasks = [asyncio.create_task(searcher.nearest(index, vectors[row], 0.9)) for row in range(1, 12)]
    gone = asyncio.create_task(searcher.nearest(index, vectors[0], 0.9))
    await asyncio.sleep(0)
    gone.cancel()
    index.go.set()
    found = await asyncio.gather(first, *tasks)
    assert index.sizes == [1, 11]
    assert [nearest[0][0] for nearest in found] == [bytes([row]) for row in range(12)]
    searcher.close()


@pytest.mark.usefixtures("in_thread")
async def test_a_group_is_bounded_and_other_indices_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, searcher = HeldIndex(8), HeldIndex(8), Searcher(3)
    vectors = filled(one)
    filled(other)
    monkeypatch.setattr(module, "_GROUP_WORK", 2 * one.work)
    tasks = [asyncio.create_task(searcher.nearest(one, vectors[0], 0.9))]
    await begun(one)
    tasks += [asyncio.create_task(searcher.nearest(one, vectors[row], 0.9)) for row in range(3)]
    tasks.append(asyncio.create_task(searcher.nearest(other, vectors[0], 0.9)))
    await asyncio.sleep(0)
    one.go.set()
    await begun(other)
    assert one.sizes == [1, 2]  # the third waits behind the other index
    other.go.set()
    await asyncio.gather(*tasks)
    assert (one.sizes, other.sizes) == ([1, 2, 1], [1])
    searcher.close()


@pytest.mark.usefixtures("in_thread")
async def test_a_search_that_fails_is_told_and_the_next_one_works() -> None:
    index, searcher = HeldIndex(8), Searcher(3)
    vectors = filled(index)
    index.go.set()
    with pytest.raises(RuntimeError, match="broken"):
        await searcher.nearest(index, vectors[0], 2.0)
    assert (await searcher.nearest(index, vectors[0], 0.9))[0][0] == bytes([0])
    searcher.close()
