"""The answer cache as the gateway sees it: one lookup, in the order exact → in flight → semantic → model."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from carpool.cache.answer import Answer, Hit
from carpool.cache.catalogue import Catalogue, Selector
from carpool.cache.config import CacheConfig
from carpool.cache.entry import Entry, Record
from carpool.cache.in_flight import InFlight, LeaderLost
from carpool.cache.index import Vector
from carpool.cache.lookup import Lookup, Outcome
from carpool.cache.memory import MemoryStore
from carpool.cache.query import Query
from carpool.cache.semantic import Embed, SemanticSearch
from carpool.cache.sqlite import SqliteStore
from carpool.cache.store import Store
from carpool.telemetry import Registry

_LOAD_SLICE = 256
_MAX_PENDING = 10_000
"""Writes that may wait for the store, and entries for their vectors; beyond, entries do without."""

_STOP_GRACE_S = 2.0
"""How long a stop waits for vectors of the last answers."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the cache holds now."""

    entries: int
    vectors: int
    """Entries that can be found by meaning."""
    size_bytes: int
    in_flight: int


class AnswerCache:
    """Finds, shares and keeps answers. Use as an async context manager, or `start` and `stop`.

    Everything is decided in the catalogue in memory, on the event loop; the store follows behind the replies.
    """

    def __init__(
        self,
        config: CacheConfig,
        *,
        embed: Embed,
        store: Store,
        registry: Registry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._clock = clock
        self._store = store
        self._catalogue = Catalogue(config, clock)
        self._in_flight = InFlight()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writes: set[asyncio.Future[None]] = set()
        self._store_up = True
        self._semantic = SemanticSearch(config, self._catalogue, embed, registry)
        self._lookups = registry.counter("carpool_cache_lookups_total", "Requests by what the cache had")
        self._seconds = registry.histogram("carpool_cache_lookup_seconds", "Time of a cache lookup")
        self._entries_gauge = registry.gauge("carpool_cache_entries", "Stored answers")
        self._bytes_gauge = registry.gauge("carpool_cache_bytes", "Memory of the stored answers")
        self._removed = registry.counter("carpool_cache_removed_total", "Answers dropped, by reason")
        self._writes_total = registry.counter("carpool_cache_writes_total", "Changes of the store, by result")

    @classmethod
    def open(
        cls, config: CacheConfig, *, data_dir: Path, embed: Embed, embedder_id: str, registry: Registry
    ) -> "AnswerCache":
        """The cache that the settings describe. `embedder_id` names the embedder and its revision."""
        store: Store = MemoryStore()
        if config.store == "sqlite":
            store = SqliteStore(config.path or data_dir / "cache.sqlite3", embedder_id)
        return cls(config, embed=embed, store=store, registry=registry)

    async def start(self) -> None:
        """Read the store. Raises `StartError` if it cannot be opened."""
        records = await self._store.load()
        for i, record in enumerate(records):
            self._dropped(self._catalogue.add(record), "evicted")
            if i % _LOAD_SLICE == _LOAD_SLICE - 1:
                await asyncio.sleep(0)
        self._dropped(self._catalogue.expire(), "expired")

    async def stop(self) -> None:
        """Finish what is being written and close the store."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_GRACE_S)
        self._semantic.close()
        await self.flush()
        await self._store.close()

    async def flush(self) -> None:
        """Wait until every answer completed so far is in the store, or refused by it."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._writes:
            await asyncio.wait(self._writes)

    async def lookup(
        self, query: Query, *, request_id: str | None = None, after: LeaderLost | None = None
    ) -> Lookup:
        """Find an answer, or join the one who is getting it, or be told to get it.

        `after`: what ended the flight that this request followed before. Never fails: what goes wrong with
        the embedder or the store is a miss.
        """
        began = time.perf_counter()
        lookup = await self._lookup(query, request_id, after)
        self._seconds.observe(time.perf_counter() - began, outcome=lookup.outcome)
        self._lookups.add(outcome=lookup.outcome, model=query.model)
        return lookup

    async def invalidate(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Drop the selected entries and return how many there are. `dry_run`: only count them.

        When it returns they are gone from the store, too; raises `OSError` if the store cannot be written.
        """
        keys = self._catalogue.select(selector)
        if not dry_run:
            self._catalogue.remove(keys)
            if deleted := self._dropped(keys, "invalidated"):
                await deleted
        return len(keys)

    def stats(self) -> CacheStats:
        """What the cache holds now."""
        catalogue = self._catalogue
        return CacheStats(len(catalogue), catalogue.vectors, catalogue.size_bytes, len(self._in_flight))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _lookup(self, query: Query, request_id: str | None, after: LeaderLost | None) -> Lookup:
        if query.mode == "off":
            return Lookup("bypass")
        if expired := self._catalogue.expire():
            self._dropped(expired, "expired")
        # The turn tells a request that takes a similar question's answer from one that does not.
        key = (query.exact, query.max_tokens, query.turn)
        while not query.no_cache:
            entry = self._catalogue.get(query.exact)
            if entry is not None and entry.fits(query.max_tokens):
                return self._hit("exact", self._use(entry, None))
            follower = self._in_flight.follow(key)
            if follower is None:
                break
            try:
                hit = await follower.search()
            except LeaderLost as lost:
                after = lost
                continue
            if hit is not None:
                return self._hit("semantic", hit)
            return Lookup("joined", flight=follower, match=follower.request_id)
        return await self._lead(query, key, request_id, after)

    async def _lead(
        self, query: Query, key: Hashable, request_id: str | None, after: LeaderLost | None
    ) -> Lookup:
        embedding: asyncio.Task[Vector | None] | None = None

        def complete(answer: Answer) -> None:
            if answer.finish_reason == "stop" and not query.no_store:
                self._keep(Entry.of(query, answer), embedding)

        leader = self._in_flight.lead(
            key, complete, shared=not query.no_store, request_id=request_id, after=after
        )
        if query.turn is not None and not query.no_cache and self._catalogue.searchable(query.partition):
            embedding = self._semantic.embed(query.turn)
            try:
                found = await self._semantic.search(query, embedding)
            except BaseException:
                leader.abandon()
                raise
            if found is not None:
                hit = self._use(*found)
                leader.found(hit)
                return self._hit("semantic", hit)
        leader.start()
        return Lookup("miss", lead=leader)

    def _use(self, entry: Entry, similarity: float | None) -> Hit:
        self._catalogue.touch(entry)
        return Hit(entry.answer, similarity)

    def _hit(self, outcome: Outcome, hit: Hit) -> Lookup:
        age_s = max(0.0, self._clock() - hit.answer.created)
        return Lookup(
            outcome, answer=hit.answer, similarity=hit.similarity, match=hit.answer.request_id, age_s=age_s
        )

    def _keep(self, entry: Entry, embedding: "asyncio.Task[Vector | None] | None") -> None:
        """Serve the entry from now on, and store it behind the reply, with its vector once there is one."""
        self._dropped(self._catalogue.add(Record(entry, None)), "evicted")
        if entry.turn is None or len(self._tasks) >= _MAX_PENDING:
            self._put(Record(entry, None))
            return
        task = asyncio.create_task(self._keep_vector(entry, embedding or self._semantic.embed(entry.turn)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_vector(self, entry: Entry, embedding: "asyncio.Task[Vector | None]") -> None:
        await asyncio.wait([embedding])
        vector = None if embedding.cancelled() else embedding.result()
        if vector is not None:
            self._dropped(self._catalogue.attach(entry, vector), "evicted")
        self._put(Record(entry, vector))

    def _put(self, record: Record) -> None:
        if self._catalogue.get(record.entry.exact) is not record.entry:
            return  # replaced, evicted or invalidated meanwhile
        if len(self._writes) >= _MAX_PENDING:
            self._writes_total.add(result="dropped")
        else:
            self._watch(self._store.put(record))

    def _dropped(self, keys: list[bytes], reason: str) -> "asyncio.Future[None] | None":
        """Let the gauges and the store follow the catalogue, which has dropped these keys."""
        self._entries_gauge.set(len(self._catalogue))
        self._bytes_gauge.set(self._catalogue.size_bytes)
        if not keys:
            return None
        self._removed.add(len(keys), reason=reason)
        return self._watch(self._store.delete(keys))

    def _watch(self, write: "asyncio.Future[None]") -> "asyncio.Future[None]":
        self._writes.add(write)
        write.add_done_callback(self._written)
        return write

    def _written(self, write: "asyncio.Future[None]") -> None:
        self._writes.discard(write)
        error = None if write.cancelled() else write.exception()
        self._writes_total.add(result="failed" if error else "stored")
        if error and self._store_up:
            _log.error("cache: answers are kept in memory only: %s", error)
        self._store_up = error is None
