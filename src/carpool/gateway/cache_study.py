"""`/admin/cache/eval` and `/admin/cache/calibrate`: the cache on an operator's own labelled pairs.

One at a time, at idle priority: the questions are embedded when nobody else wants the embedder.
"""

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from carpool.cache.calibration import Calibration
from carpool.cache.evaluation import evaluate
from carpool.cache.index import Vector, normalised
from carpool.cache.labelled import Pair
from carpool.cache.recalibration import calibrate
from carpool.cache.service import AnswerCache
from carpool.errors import InvalidRequest, NotFound, Overloaded
from carpool.gateway.cache_study_schema import (
    CalibrationRequest,
    EvaluationReply,
    EvaluationRequest,
    as_pairs,
)
from carpool.gateway.exchange import JSON, Exchange
from carpool.gateway.services import Services
from carpool.gateway.validation import BodyReader
from carpool.inference_engine import Priority
from carpool.worker.protocol import Embed

_TEXTS = 256
"""Questions embedded by one call."""

_evaluation = BodyReader(msgspec.json.Decoder(EvaluationRequest))
_calibration = BodyReader(msgspec.json.Decoder(CalibrationRequest))


class _Stopped(Exception):
    """Nobody waits for it any more."""


class CacheStudy:
    """The endpoints. Each raises `NotFound` where there is no cache."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._busy = False

    async def evaluate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /admin/cache/eval`."""
        cache = self._cache
        exchange = Exchange(scope, receive, send, self._services.config.request_timeout_s)
        request: EvaluationRequest = _evaluation.read(await self._body(exchange))
        config, calibration = cache.config, _calibration_of(request, cache)
        if calibration is not None:
            config = dataclasses.replace(config, policy="verified")
        if request.max_wrong is not None:
            config = dataclasses.replace(config, policy="verified", max_wrong=request.max_wrong)
        pairs = as_pairs(request.pairs)
        with self._alone():
            async with exchange.attended():
                vectors = await self._vectors(pairs, config.embedder, exchange)

                async def embed(texts: list[str]) -> NDArray[np.float32]:
                    return await self._embed(texts, config.embedder, exchange)

                found = await evaluate(config, pairs, vectors, embed, calibration)
                await exchange.reply(msgspec.json.encode(EvaluationReply.of(found)), JSON)

    async def calibrate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /admin/cache/calibrate`."""
        cache = self._cache
        exchange = Exchange(scope, receive, send, self._services.config.request_timeout_s)
        request: CalibrationRequest = _calibration.read(await self._body(exchange))
        embedder = request.embedder or cache.config.embedder
        pairs = as_pairs(request.pairs)
        with self._alone():
            async with exchange.attended():
                vectors = await self._vectors(pairs, embedder, exchange)
                try:
                    found = await _in_thread(
                        lambda pause: calibrate(
                            pairs, vectors, embedder=embedder, floor=request.floor, pause=pause
                        )
                    )
                except ValueError as error:
                    raise InvalidRequest(f"These pairs do not do: {error}.", param="pairs") from None
                await exchange.reply(msgspec.json.encode(found), JSON)

    @property
    def _cache(self) -> AnswerCache:
        if self._services.cache is None:
            raise NotFound("This server has no answer cache.")
        return self._services.cache

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._busy:
            raise Overloaded("An evaluation or a calibration is running.", retry_after_s=10.0)
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def _body(self, exchange: Exchange) -> bytes:
        return await exchange.body(self._services.config.max_body_bytes)

    async def _vectors(self, pairs: Sequence[Pair], embedder: str, exchange: Exchange) -> dict[str, Vector]:
        """Unit vectors of all questions. Raises what the model raises."""
        texts = sorted({text for pair in pairs for text in (pair.first, pair.second)}, key=len)
        vectors: dict[str, Vector] = {}
        for start in range(0, len(texts), _TEXTS):
            part = texts[start : start + _TEXTS]
            vectors.update(zip(part, await self._embed(part, embedder, exchange), strict=True))
        return vectors

    async def _embed(self, texts: list[str], embedder: str, exchange: Exchange) -> NDArray[np.float32]:
        client = self._services.client
        request = Embed(
            id=0,
            model=client.resolve(embedder).name,
            inputs=texts,
            truncate=True,
            priority=Priority.IDLE,
            tenant=exchange.call.tenant,
            timeout_s=self._services.config.request_timeout_s,
        )
        return np.stack([normalised(vector) for vector in (await client.embed(request)).vectors])


def _calibration_of(request: EvaluationRequest, cache: AnswerCache) -> Calibration | None:
    if request.calibration is None:
        return None
    try:
        found = Calibration.decode(msgspec.json.encode(request.calibration))
    except ValueError as error:
        raise InvalidRequest(f"It is no calibration: {error}.", param="calibration") from None
    if found.embedder != cache.config.embedder:
        raise InvalidRequest(
            f"It is for the embedder {found.embedder}, not {cache.config.embedder}.", param="calibration"
        )
    return found


async def _in_thread(function: Callable[[Callable[[], None]], Calibration]) -> Calibration:
    """Run it beside the event loop. It ends soon after it is no longer waited for, if it calls `pause`."""
    stopped = threading.Event()

    def pause() -> None:
        if stopped.is_set():
            raise _Stopped

    try:
        return await asyncio.to_thread(function, pause)
    finally:
        stopped.set()
