"""The answer cache as the gateway sees it: one lookup, in the order exact → in flight → semantic → model."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from carpool.cache.answer import Answer, Hit
from carpool.cache.calibration import Calibration
from carpool.cache.config import CacheConfig
from carpool.cache.entry import Entry
from carpool.cache.in_flight import InFlight, LeaderLost
from carpool.cache.judge import Judge
from carpool.cache.keeper import Embedding, Keeper
from carpool.cache.lookup import Lookup, Outcome
from carpool.cache.memory import MemoryStore
from carpool.cache.query import Query
from carpool.cache.redis import RedisStore
from carpool.cache.selector import Selector
from carpool.cache.semantic import Embed, SemanticSearch
from carpool.cache.sqlite import SqliteStore
from carpool.cache.store import Store
from carpool.cache.verification import Verification
from carpool.telemetry import Registry


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the cache holds now."""

    entries: int
    vectors: int
    """Entries that can be found by meaning."""
    size_bytes: int
    in_flight: int
    lookups: dict[tuple[str, str], dict[str, int]]
    """By tenant and model, then by outcome, since the start."""


class AnswerCache:
    """Finds, shares and keeps answers. Use as an async context manager, or `start` and `stop`.

    Everything is decided in the catalogue in memory, on the event loop; the store follows behind the replies.
    """

    def __init__(
        self,
        config: CacheConfig,
        *,
        embed: Embed,
        embedder_id: str = "",
        store: Store,
        registry: Registry,
        verdicts: Path | None = None,
        judge: Judge | None = None,
        calibration: Calibration | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`embedder_id` names the embedder that verdicts are on, and its revision.

        `verdicts`: the file that keeps what audits found; None keeps it in memory. `calibration`: in place of
        the configured one.
        """
        self.config = config
        self.verification = Verification.of(config, registry, verdicts, judge, embedder_id, calibration)
        self._clock = clock
        self.keeper = Keeper(config, store, registry, clock)
        self._catalogue = self.keeper.catalogue
        self._in_flight = InFlight()
        self._semantic = SemanticSearch(config, self._catalogue, embed, registry, self.verification)
        self._lookups = registry.counter("carpool_cache_lookups_total", "Requests by what the cache had")
        self._seconds = registry.histogram("carpool_cache_lookup_seconds", "Time of a cache lookup")

    @classmethod
    def open(
        cls,
        config: CacheConfig,
        *,
        data_dir: Path,
        embed: Embed,
        embedder_id: str,
        registry: Registry,
        judge: Judge | None = None,
    ) -> "AnswerCache":
        """The cache that the settings describe. `embedder_id` names the embedder and its revision."""
        store: Store = MemoryStore()
        if config.store == "sqlite":
            store = SqliteStore(config.path or data_dir / "cache.sqlite3", embedder_id)
        elif config.store == "redis":
            store = RedisStore(config.url or "", embedder_id, config.ttl_s)
        return cls(
            config,
            embed=embed,
            embedder_id=embedder_id,
            store=store,
            registry=registry,
            verdicts=data_dir / "cache-verdicts.jsonl",
            judge=judge,
        )

    async def start(self) -> None:
        """Read the store. Raises `StartError` if it cannot be opened."""
        await self.keeper.load()
        self.verification.start()

    async def stop(self) -> None:
        """Finish what is being written and close the store."""
        await self.keeper.settle()
        self._semantic.close()
        await self.verification.stop()
        await self.keeper.close()

    async def flush(self) -> None:
        """Wait until every answer completed so far is in the store, or refused by it."""
        await self.keeper.flush()

    async def lookup(
        self,
        query: Query,
        *,
        request_id: str | None = None,
        after: LeaderLost | None = None,
        before_work: Callable[[], None] = lambda: None,
    ) -> Lookup:
        """Find an answer, or join the one who is getting it, or be told to get it.

        `after`: what ended the flight that this request followed before. `before_work` is called where there
        is no answer for nothing, and raises if the model could not take the request: then it goes on to the
        caller. Nothing else fails: what goes wrong with the embedder or the store is a miss.
        """
        began = time.perf_counter()
        lookup = await self._lookup(query, request_id, after, before_work)
        self._seconds.observe(time.perf_counter() - began, outcome=lookup.outcome)
        self._lookups.add(outcome=lookup.outcome, tenant=query.tenant, model=query.model)
        return lookup

    def repeat(self, query: Query, entry: Entry) -> float | None:
        """The age in seconds of an entry that a lookup with an equal query has found, if it still answers it.

        Counts as a lookup; None: it is gone, or too old, and nothing was counted.
        """
        began = time.perf_counter()
        self.keeper.expire()
        if self._catalogue.get(query.exact) is not entry:
            return None
        self._catalogue.touch(entry)
        self._seconds.observe(time.perf_counter() - began, outcome="exact")
        self._lookups.add(outcome="exact", tenant=query.tenant, model=query.model)
        return self.age_s(entry.created)

    async def invalidate(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Drop the selected entries and return how many there are. `dry_run`: only count them.

        When it returns they are gone from the store, too; raises `OSError` if the store cannot be written.
        """
        keys = [kept.entry.exact async for kept in self.keeper.select(selector)]
        if not dry_run:
            await self.keeper.invalidate(keys)
        return len(keys)

    def stats(self) -> CacheStats:
        """What the cache holds now."""
        self.keeper.expire()
        lookups: dict[tuple[str, str], dict[str, int]] = {}
        for series in self._lookups.series.values():
            labels = dict(series.labels)
            by_outcome = lookups.setdefault((labels["tenant"], labels["model"]), {})
            by_outcome[labels["outcome"]] = int(series.value)
        catalogue = self._catalogue
        return CacheStats(
            len(catalogue), catalogue.vectors, catalogue.size_bytes, len(self._in_flight), lookups
        )

    def age_s(self, created: float) -> float:
        """Seconds since a time in Unix seconds."""
        return max(0.0, self._clock() - created)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _lookup(
        self, query: Query, request_id: str | None, after: LeaderLost | None, before_work: Callable[[], None]
    ) -> Lookup:
        if query.mode == "off":
            return Lookup("bypass")
        self.keeper.expire()
        # The turn tells a request that takes a similar question's answer from one that does not.
        key = (query.exact, query.max_tokens, query.turn)
        while not query.no_cache:
            entry = self._catalogue.get(query.exact)
            if entry is not None and entry.fits(query.max_tokens):
                return self._hit("exact", self._use(entry, None), entry)
            follower = self._in_flight.follow(key)
            if follower is None:
                break
            try:
                hit = await follower.search()
            except LeaderLost as lost:
                after = lost
                continue
            self._semantic.offer(query, follower.choice)
            if hit is not None:
                return self._hit("semantic", hit)
            return Lookup("joined", flight=follower, match=follower.request_id)
        before_work()
        return await self._lead(query, key, request_id, after)

    async def _lead(
        self, query: Query, key: Hashable, request_id: str | None, after: LeaderLost | None
    ) -> Lookup:
        embedding: Embedding | None = None
        began = time.perf_counter()

        def embed(turn: str) -> Embedding:
            return embedding or self._semantic.embed(query.tenant, turn)

        def complete(answer: Answer) -> None:
            if answer.finish_reason == "stop" and not query.no_store:
                cost_ms = (time.perf_counter() - began) * 1e3
                self.keeper.keep(Entry.of(query, answer, cost_ms), embed)

        leader = self._in_flight.lead(
            key, complete, shared=not query.no_store, request_id=request_id, after=after
        )
        if query.turn is not None and not query.no_cache and self._catalogue.searchable(query.partition):
            embedding = self._semantic.embed(query.tenant, query.turn)
            try:
                choice = await self._semantic.search(query, embedding)
            except BaseException:
                leader.abandon()
                raise
            self._semantic.offer(query, choice)
            leader.judged(choice)
            if choice is not None and choice.accepted:
                hit = self._use(choice.entry, choice.cosine)
                leader.found(hit)
                return self._hit("semantic", hit)
        leader.start()
        return Lookup("miss", lead=leader)

    def _use(self, entry: Entry, similarity: float | None) -> Hit:
        self._catalogue.touch(entry)
        return Hit(entry.answer, similarity)

    def _hit(self, outcome: Outcome, hit: Hit, entry: Entry | None = None) -> Lookup:
        return Lookup(
            outcome,
            answer=hit.answer,
            entry=entry,
            similarity=hit.similarity,
            match=hit.answer.request_id,
            age_s=self.age_s(hit.answer.created),
        )
