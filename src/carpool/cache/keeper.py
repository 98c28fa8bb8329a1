"""Lets the store follow the catalogue, and the catalogue what others do to a shared store."""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from carpool.cache.catalogue import Catalogue, Kept
from carpool.cache.config import CacheConfig
from carpool.cache.entry import Entry, Record
from carpool.cache.index import Vector
from carpool.cache.selector import Selector
from carpool.cache.store import Store
from carpool.telemetry import Registry

Embedding = asyncio.Task[Vector | None]

_SLICE = 32
"""Entries that are taken in or looked at before others get the event loop."""
_MAX_PENDING = 10_000
"""Writes that may wait for the store, and entries for their vectors; beyond, entries do without."""
_STOP_GRACE_S = 2.0
"""How long a stop waits for vectors of the last answers."""

_log = logging.getLogger(__name__)


class Keeper:
    """Everything is decided in the catalogue, on the event loop; the store follows behind the replies.

    It is the store's `Listener`.
    """

    def __init__(
        self,
        config: CacheConfig,
        store: Store,
        registry: Registry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.catalogue = Catalogue(config, clock)
        self._clock = clock
        self._store = store
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unfinished: dict[bytes, Entry] = {}
        """Entries whose vectors are being made; the store gets them afterwards."""
        self._writes: set[asyncio.Future[None]] = set()
        self._undeleted: set[bytes] = set()
        """Invalidated entries that the store would not let go of."""
        self.store_up = True
        """Whether the store took the last change."""
        self._entries_gauge = registry.gauge("carpool_cache_entries", "Stored answers")
        self._bytes_gauge = registry.gauge("carpool_cache_bytes", "Memory of the stored answers")
        self._up_gauge = registry.gauge(
            "carpool_cache_store_up", "1 if the store took the last change, else 0"
        )
        self._removed_total = registry.counter("carpool_cache_removed_total", "Answers dropped, by reason")
        self._writes_total = registry.counter("carpool_cache_writes_total", "Changes of the store, by result")

    async def load(self) -> None:
        """Read the store. Raises `StartError` if it cannot be opened."""
        self._up_gauge.set(1)
        records = await self._store.load(self)
        for i, record in enumerate(records):
            self.dropped(self.catalogue.add(record), "evicted")
            if i % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        self.expire()

    async def settle(self) -> None:
        """Give the vectors of the last answers some time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_GRACE_S)

    async def close(self) -> None:
        """Finish what is being written and close the store."""
        await self.flush()
        await self._store.close()

    async def flush(self) -> None:
        """Wait until every answer completed so far is in the store, or refused by it."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._writes:
            await asyncio.wait(self._writes)

    def keep(self, entry: Entry, embed: Callable[[str], Embedding]) -> None:
        """Serve the entry from now on, and store it behind the reply, with its vector once there is one."""
        self.dropped(self.catalogue.add(Record(entry, None)), "evicted")
        if entry.turn is None or len(self._tasks) >= _MAX_PENDING:
            self._put(Record(entry, None))
            return
        self._unfinished[entry.exact] = entry
        task = asyncio.create_task(self._keep_vector(entry, embed(entry.turn)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def expire(self) -> None:
        """Drop what is too old."""
        if expired := self.catalogue.expire():
            self.dropped(expired, "expired")

    async def select(self, selector: Selector) -> AsyncIterator[Kept]:
        """The selected entries, in no order; others get the event loop meanwhile."""
        now = self._clock()
        for i, key in enumerate(self.catalogue.keys()):
            kept = self.catalogue.kept(key)
            if kept is not None and selector.matches(kept.entry, now):
                yield kept
            if i % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)

    async def newest(self, selector: Selector, limit: int) -> list[Kept]:
        """The selected entries that were answered last, newest first."""
        found: list[tuple[float, int, Kept]] = []
        order = itertools.count()
        async for kept in self.select(selector):
            heapq.heappush(found, (kept.entry.created, next(order), kept))
            if len(found) > limit:
                heapq.heappop(found)
        return [kept for _, _, kept in sorted(found, reverse=True)]

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        """Drop entries, from the store as well, with those that it would not let go of before.

        Raises `OSError` if the store cannot be written; they are gone from memory all the same.
        """
        self.catalogue.remove(keys)
        # What was answered anew since then is not meant.
        again = [key for key in self._undeleted if self.catalogue.get(key) is None]
        self._undeleted = {*again, *keys}
        if deleted := self.dropped(keys, "invalidated"):
            await deleted
        if again:
            await self._watch(self._store.delete(again))
        self._undeleted.difference_update(keys, again)

    def dropped(self, keys: Sequence[bytes], reason: str) -> "asyncio.Future[None] | None":
        """Let the gauges and the store follow the catalogue, which has dropped these keys."""
        self._gauge()
        if not keys:
            return None
        self._removed_total.add(len(keys), reason=reason)
        return self._watch(self._store.delete(keys))

    # What follows the store calls.

    def added(self, records: Sequence[Record]) -> None:
        """See `Listener`. What they displace here stays in the store, for those who hold it."""
        for record in records:
            mine = self.catalogue.get(record.entry.exact)
            if mine is not None and (mine.created, mine.encoded) == (
                record.entry.created,
                record.entry.encoded,
            ):
                continue
            if evicted := self.catalogue.add(record):
                self._removed_total.add(len(evicted), reason="evicted")
        self._gauge()

    def removed(self, keys: Sequence[bytes]) -> None:
        """See `Listener`."""
        known = [key for key in keys if self.catalogue.get(key) is not None]
        self.catalogue.remove(keys)
        if known:
            self._removed_total.add(len(known), reason="elsewhere")
        self._gauge()

    def held(self) -> list[bytes]:
        """See `Listener`."""
        held = self.catalogue.keys()
        return [key for key in held if key not in self._unfinished] if self._unfinished else held

    def record(self, key: bytes) -> Record | None:
        """See `Listener`."""
        return self.catalogue.record(key)

    def reachable(self, error: Exception | None) -> None:
        """See `Listener`. Told once, however many changes fail."""
        if error is not None and self.store_up:
            _log.error("cache: answers are kept in memory only: %s", error)
        if error is None and not self.store_up:
            _log.warning("cache: the store works again")
        self.store_up = error is None
        self._up_gauge.set(1 if self.store_up else 0)

    async def _keep_vector(self, entry: Entry, embedding: Embedding) -> None:
        await asyncio.wait([embedding])
        vector = None if embedding.cancelled() else embedding.result()
        if vector is not None:
            self.dropped(self.catalogue.attach(entry, vector), "evicted")
        if self._unfinished.get(entry.exact) is entry:
            del self._unfinished[entry.exact]
        self._put(Record(entry, vector))

    def _put(self, record: Record) -> None:
        if self.catalogue.get(record.entry.exact) is not record.entry:
            return  # replaced, evicted or invalidated meanwhile
        if len(self._writes) >= _MAX_PENDING:
            self._writes_total.add(result="dropped")
        else:
            self._watch(self._store.put(record))

    def _watch(self, write: "asyncio.Future[None]") -> "asyncio.Future[None]":
        self._writes.add(write)
        write.add_done_callback(self._written)
        return write

    def _written(self, write: "asyncio.Future[None]") -> None:
        self._writes.discard(write)
        error = None if write.cancelled() else write.exception()
        self._writes_total.add(result="failed" if error else "stored")
        self.reachable(error if isinstance(error, Exception) else None)

    def _gauge(self) -> None:
        self._entries_gauge.set(len(self.catalogue))
        self._bytes_gauge.set(self.catalogue.size_bytes)
