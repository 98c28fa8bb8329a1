"""Where searches run: small ones at once, large ones in a thread, those that wait for one index together."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from carpool.cache.index import Vector, VectorIndex

Found = list[tuple[bytes, float]]
"""Keys with their cosines, nearest first."""

INLINE_WORK = 800_000
"""Multiplications that the event loop does itself, in about 0.2 ms; larger searches go to a thread."""
_GROUP_WORK = 150_000_000
"""Bound on the multiplications of searches done together: some 30 ms, so that nobody is late for company."""


class Searcher:
    """Searches indices for the nearest vectors above a floor.

    While the thread searches, others who want the same index gather, and become one matrix product.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: most keys found by one search."""
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, "cache-search")
        self._waiting: dict[tuple[VectorIndex, float], list[tuple[Vector, asyncio.Future[Found]]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def nearest(self, index: VectorIndex, vector: Vector, floor: float) -> Found:
        """The nearest keys to a unit vector with a cosine above `floor`.

        The index may change meanwhile; see `VectorIndex`.
        """
        if index.work <= INLINE_WORK:
            return index.search(vector[None, :], floor, self._limit)[0]
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((index, floor), []).append((vector, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    def close(self) -> None:
        """Let go of the thread; what it does now it finishes."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                (index, floor), group = self._next_group()
                if not group:
                    continue
                vectors = np.stack([vector for vector, _ in group])
                try:
                    found = await loop.run_in_executor(
                        self._thread, index.search, vectors, floor, self._limit
                    )
                except Exception as error:  # handed to those who asked
                    for _, future in group:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, future), nearest in zip(group, found, strict=True):
                    if not future.done():
                        future.set_result(nearest)
        finally:
            self._task = None

    def _next_group(
        self,
    ) -> tuple[tuple[VectorIndex, float], list[tuple[Vector, asyncio.Future[Found]]]]:
        """Who waits for the index that was asked for first, as many as go together and still want to know."""
        key = next(iter(self._waiting))
        waiting = [each for each in self._waiting.pop(key) if not each[1].done()]
        most = max(1, _GROUP_WORK // max(1, key[0].work))
        if waiting[most:]:
            self._waiting[key] = waiting[most:]  # behind the other indices
        return key, waiting[:most]
