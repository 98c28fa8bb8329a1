"""The search by meaning: embed the turn, take the nearest questions of the partition, keep what is sound."""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool.cache.catalogue import Catalogue
from carpool.cache.config import CacheConfig
from carpool.cache.difference import difference
from carpool.cache.entry import Entry
from carpool.cache.exclusion import exclusion
from carpool.cache.index import Vector, normalised
from carpool.cache.judge import Case
from carpool.cache.policy import Choice
from carpool.cache.query import Query
from carpool.cache.searcher import Searcher
from carpool.cache.verification import Verification
from carpool.errors import ContextLengthExceeded
from carpool.telemetry import Registry

Embed = Callable[[list[str]], Awaitable[NDArray[np.float32]]]
"""Texts to vectors, float32 [n, d]. Raises `ContextLengthExceeded` instead of cutting a text short."""

CANDIDATES = 8
"""Nearest questions taken from the index."""
_RECENT = 4096
"""Turns whose vectors are remembered: what one asks in other words, others do, too. 6 MiB at 384 numbers."""
_EMBED_TIMEOUT_S = 30.0
"""After this an embedding that nobody waits for any more, but its entry, is given up."""

_log = logging.getLogger(__name__)


class SemanticSearch:
    """Finds an entry whose question means the same. Every failure and delay is a miss."""

    def __init__(
        self,
        config: CacheConfig,
        catalogue: Catalogue,
        embed: Embed,
        registry: Registry,
        verification: Verification,
    ) -> None:
        self._config = config
        self._policy = verification.policy
        self._audits = verification.audits
        self._catalogue = catalogue
        self._embed = embed
        self._searcher = Searcher(CANDIDATES)
        self._embedding: set[asyncio.Task[Any]] = set()
        self._recent: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        """By tenant, who else could tell from the time what another has asked; least recently used first."""
        self._up = True
        self._unanswered = registry.counter(
            "carpool_cache_searches_given_up_total", "Searches by meaning without a result, by reason"
        )
        self._vetoed = registry.counter(
            "carpool_cache_vetoes_total",
            "Stored questions near enough that were ruled out, by reason",
        )

    def embed(self, tenant: str, turn: str) -> "asyncio.Task[Vector | None]":
        """Begin to embed a turn. The task gives its unit vector, or None if there is none to be had."""
        task = asyncio.create_task(self._vector(tenant, turn))
        self._embedding.add(task)
        task.add_done_callback(self._embedding.discard)
        return task

    def close(self) -> None:
        """Give up what is being embedded, and search no more."""
        self._searcher.close()
        for task in self._embedding:
            task.cancel()

    async def search(self, query: Query, embedding: "asyncio.Task[Vector | None]") -> Choice | None:
        """The nearest entry that serves the query, or nearly would; None if none is found in the budget."""
        budget_s = self._config.lookup_budget_ms / 1000
        # Not cancelled: the vector is wanted for the query's own entry when the search has given up. And
        # where it is the event loop that is late, a vector that is there by then counts.
        await asyncio.wait([embedding], timeout=budget_s)
        try:
            if embedding.done():
                vector = embedding.result()
                async with asyncio.timeout(budget_s):
                    return None if vector is None else await self._nearest(query, vector)
        except TimeoutError:
            pass
        self._unanswered.add(reason="budget")
        return None

    async def _nearest(self, query: Query, vector: Vector) -> Choice | None:
        """The policy's first choice that no veto rules out and whose difference, if any, is similar, too."""
        turn = query.turn or ""
        near: list[tuple[Choice, tuple[str, str]]] = []
        for choice in self._policy.choose(query, await self._candidates(query, vector)):
            other = choice.entry.turn or ""
            parts = difference(turn, other, self._policy.min_shared) or ("", "")
            reason = exclusion(turn, other, self._policy.min_shared)
            if reason is not None:
                self._vetoed.add(reason=reason)
                continue
            near.append((choice, parts))
            if parts[0] == parts[1]:
                break
        texts = list({text for _, parts in near if parts[0] != parts[1] for text in parts})
        vectors = dict(zip(texts, await self._vectors(texts) or (), strict=False)) if texts else {}
        for choice, (mine, theirs) in near:
            if mine == theirs or (
                vectors and float(vectors[mine] @ vectors[theirs]) > self._config.threshold
            ):
                return choice
            self._vetoed.add(reason="difference")
        return None

    def offer(self, query: Query, choice: Choice | None) -> None:
        """Let a judgement be audited, whichever way it went, for each request that it was made for."""
        if (
            choice is not None
            and choice.probability is not None
            and self._audits is not None
            and self._audits.sampled()
        ):
            answer = choice.entry.answer
            self._audits.offer(
                Case(
                    secrets.token_hex(8),
                    query.tenant,
                    query.model,
                    query.turn or "",
                    choice.entry.turn or "",
                    answer.text,
                    choice.probability,
                    choice.accepted,
                )
            )

    async def _candidates(self, query: Query, vector: Vector) -> list[tuple[Entry, float]]:
        """The entries above the floor that fit the query, nearest first."""
        index = self._catalogue.index(query.partition, len(vector))
        if index is None:
            return []
        floor = self._policy.floor
        found = []
        for key, _ in await self._searcher.nearest(index, vector, floor):
            # The index may have changed while the thread searched it.
            cosine = index.cosine(key, vector)
            entry = self._catalogue.get(key)
            if entry and cosine is not None and cosine > floor and entry.fits(query.max_tokens):
                found.append((entry, cosine))
        return found

    async def _vector(self, tenant: str, turn: str) -> Vector | None:
        vector = self._recent.pop((tenant, turn), None)
        if vector is None:
            vectors = await self._vectors([turn])
            if not vectors:
                return None
            [vector] = vectors
        self._recent[tenant, turn] = vector
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return vector

    async def _vectors(self, texts: list[str]) -> list[Vector] | None:
        """Unit vectors of the texts; None if the embedder has none."""
        try:
            async with asyncio.timeout(_EMBED_TIMEOUT_S):
                vectors = [normalised(vector) for vector in await self._embed(texts)]
            if len(vectors) != len(texts):
                raise ValueError(f"{len(vectors)} vectors for {len(texts)} texts")
        except ContextLengthExceeded:
            self._unanswered.add(reason="too_long")
            return None
        except Exception as error:  # whatever is wrong with the embedder, the model can answer
            self._unanswered.add(reason="embedder")
            if self._up:
                _log.warning(
                    "cache: no search by meaning while the embedder fails: %s", str(error) or repr(error)
                )
            self._up = False
            return None
        if not self._up:
            _log.warning("cache: searching by meaning again")
        self._up = True
        return vectors
