"""Hosted encoders: embedding models and rerankers."""

import asyncio
import time
from dataclasses import replace
from typing import Generic, TypedDict, TypeVar, cast

import msgspec
import numpy as np

from carpool import encoders
from carpool.encoders import Embedder, Inputs, Reranker
from carpool.inference_engine import Priority
from carpool.runtimes.encoder import ClassifierRuntime, EncoderRuntime
from carpool.worker.hosted import Description, EmbeddingModel, HostedModel, ScoringModel
from carpool.worker.protocol import Embed, Knobs, Result, Score, Scores

Model = TypeVar("Model", bound=Embedder | Reranker)


class HostedEncoder(HostedModel, Generic[Model]):
    """An encoder, started on the running event loop. It owns the runtime from now on."""

    def __init__(
        self, runtime: EncoderRuntime | ClassifierRuntime, model: Model, description: Description
    ) -> None:
        self.description = description
        self._runtime = runtime
        self._model: Model = model
        self._model.start()

    @property
    def steps(self) -> int:
        """Batches of the model."""
        return self._model.batches

    @property
    def has_work(self) -> bool:
        """See `hosted.HostedModel`."""
        return self._model.has_work

    @property
    def healthy(self) -> bool:
        """See `hosted.HostedModel`."""
        return self._model.healthy

    @property
    def knobs(self) -> Knobs:
        """See `hosted.HostedModel`."""
        config = self._model.batch_config
        return Knobs(config.max_batch_size, config.batch_wait_ms, config.weight)

    def tune(self, knobs: Knobs) -> None:
        """See `hosted.HostedModel`."""
        changes = {name: value for name, value in msgspec.structs.asdict(knobs).items() if value is not None}
        self._model.batch_config = replace(self._model.batch_config, **changes)

    async def close(self) -> None:
        """Finish what was accepted, then free the device."""
        await self._model.stop()
        await asyncio.to_thread(self._runtime.close)


class Encoder(HostedEncoder[Embedder], EmbeddingModel, ScoringModel):
    """An embedder."""

    async def embed(self, request: Embed) -> Result:
        """See `hosted.EmbeddingModel`."""
        inputs = cast("Inputs", request.inputs)
        embeddings = await self._model.embed(inputs, **_terms(request))
        vectors = np.ascontiguousarray(embeddings.vectors, "<f4")
        return Result(request.id, vectors.shape[1], vectors.data.cast("B"), embeddings.token_counts)

    async def score(self, request: Score) -> Scores:
        """See `hosted.ScoringModel`."""
        return _message(request, await self._model.score(request.query, request.documents, **_terms(request)))


class CrossEncoder(HostedEncoder[Reranker], ScoringModel):
    """A reranker."""

    async def score(self, request: Score) -> Scores:
        """See `hosted.ScoringModel`."""
        scores = await self._model.score(request.query, request.documents, raw=request.raw, **_terms(request))
        return _message(request, scores)


class _Terms(TypedDict):
    """On which a call waits its turn."""

    priority: Priority
    deadline: float | None
    tenant: str
    truncate: bool


def _terms(request: Embed | Score) -> _Terms:
    return _Terms(
        priority=Priority(request.priority),
        deadline=None if request.timeout_s is None else time.monotonic() + request.timeout_s,
        tenant=request.tenant,
        truncate=request.truncate,
    )


def _message(request: Score, scores: encoders.Scores) -> Scores:
    values = np.ascontiguousarray(scores.scores, "<f4")
    return Scores(request.id, values.data.cast("B"), scores.num_tokens)
