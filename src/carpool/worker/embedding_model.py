"""Hosted encoders: embedding models and rerankers."""

import asyncio
import time
from dataclasses import replace
from typing import cast

import msgspec
import numpy as np

from carpool import encoders
from carpool.encoders import Embedder, Inputs, Reranker
from carpool.inference_engine import EngineConfig, Priority
from carpool.runtimes.encoder import ClassifierRuntime, EncoderRuntime
from carpool.worker.hosted import Description
from carpool.worker.protocol import Embed, Knobs, Result, Score, Scores


class Encoder:
    """An embedder, started on the running event loop. It owns the runtime from now on."""

    def __init__(self, runtime: EncoderRuntime, embedder: Embedder, description: Description) -> None:
        self.description = description
        self._runtime = runtime
        self._embedder = embedder
        self._embedder.start()

    @property
    def steps(self) -> int:
        """Batches of the embedder."""
        return self._embedder.batches

    @property
    def knobs(self) -> Knobs:
        """See `hosted.HostedModel`."""
        return _knobs(self._embedder.batch_config)

    def tune(self, knobs: Knobs) -> None:
        """See `hosted.HostedModel`."""
        self._embedder.batch_config = _tuned(self._embedder.batch_config, knobs)

    async def embed(self, request: Embed) -> Result:
        """See `hosted.EmbeddingModel`."""
        embeddings = await self._embedder.embed(
            cast("Inputs", request.inputs),
            priority=Priority(request.priority),
            deadline=_deadline(request),
            tenant=request.tenant,
            truncate=request.truncate,
        )
        vectors = np.ascontiguousarray(embeddings.vectors, "<f4")
        return Result(request.id, vectors.shape[1], vectors.data.cast("B"), embeddings.token_counts)

    async def score(self, request: Score) -> Scores:
        """See `hosted.ScoringModel`."""
        scores = await self._embedder.score(
            request.query,
            request.documents,
            priority=Priority(request.priority),
            deadline=_deadline(request),
            tenant=request.tenant,
            truncate=request.truncate,
        )
        return _message(request, scores)

    async def close(self) -> None:
        """Finish what was accepted, then free the device."""
        await self._embedder.stop()
        await asyncio.to_thread(self._runtime.close)


class CrossEncoder:
    """A reranker, started on the running event loop. It owns the runtime from now on."""

    def __init__(self, runtime: ClassifierRuntime, reranker: Reranker, description: Description) -> None:
        self.description = description
        self._runtime = runtime
        self._reranker = reranker
        self._reranker.start()

    @property
    def steps(self) -> int:
        """Batches of the reranker."""
        return self._reranker.batches

    @property
    def knobs(self) -> Knobs:
        """See `hosted.HostedModel`."""
        return _knobs(self._reranker.batch_config)

    def tune(self, knobs: Knobs) -> None:
        """See `hosted.HostedModel`."""
        self._reranker.batch_config = _tuned(self._reranker.batch_config, knobs)

    async def score(self, request: Score) -> Scores:
        """See `hosted.ScoringModel`."""
        scores = await self._reranker.score(
            request.query,
            request.documents,
            priority=Priority(request.priority),
            deadline=_deadline(request),
            tenant=request.tenant,
            truncate=request.truncate,
            raw=request.raw,
        )
        return _message(request, scores)

    async def close(self) -> None:
        """Finish what was accepted, then free the device."""
        await self._reranker.stop()
        await asyncio.to_thread(self._runtime.close)


def _knobs(config: EngineConfig) -> Knobs:
    return Knobs(config.max_batch_size, config.batch_wait_ms, config.weight)


def _tuned(config: EngineConfig, knobs: Knobs) -> EngineConfig:
    changes = {name: value for name, value in msgspec.structs.asdict(knobs).items() if value is not None}
    return replace(config, **changes)


def _deadline(request: Embed | Score) -> float | None:
    return None if request.timeout_s is None else time.monotonic() + request.timeout_s


def _message(request: Score, scores: encoders.Scores) -> Scores:
    values = np.ascontiguousarray(scores.scores, "<f4")
    return Scores(request.id, values.data.cast("B"), scores.num_tokens)
