"""The live page: one static file, and a feed that sends it the numbers once a second."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carpool.gateway.drain import Drain
from carpool.gateway.exchange import EVENT_STREAM, Exchange
from carpool.gateway.services import Services
from carpool.gateway.sse import event
from carpool.telemetry import Metric

_INTERVAL_S = 1.0
_HISTORY = 120
"""Frames a page gets at once when it is opened."""
_LATENCY_WINDOW_S = 60.0

_PAGE = (Path(__file__).parent / "static" / "dashboard.html").read_bytes()
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "cache-control": "no-cache",
}


class Histogram(msgspec.Struct, frozen=True):
    """Observations since the start by bucket; the last bucket has no upper bound."""

    bounds: list[float]
    counts: list[int]


class ModelLine(msgspec.Struct, frozen=True):
    """A model's state."""

    id: str
    task: str | None
    phase: str
    percent: float


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one moment. Counters are totals since the start, so the page can take any rate."""

    time: float
    """Unix seconds."""
    requests: float
    generated_tokens: float
    embedding_inputs: float
    rerank_documents: float
    answers: dict[str, float]
    """By the cache's outcome."""
    p50_ms: float | None
    p95_ms: float | None
    """Of requests to models that ended in the last minute; None without any."""
    in_flight: int
    running: float
    """Sequences that take part in steps."""
    waiting: float
    """Sequences, embedding inputs and rerank documents that wait for a place."""
    kv_blocks_used: float
    kv_blocks: float
    step_batch_size: Histogram
    loop_lag_ms: float
    models: list[ModelLine]


class Dashboard:
    """Takes a frame a second while `run` runs, and feeds it to every open page."""

    def __init__(self, services: Services, drain: Drain) -> None:
        self._services = services
        self._drain = drain
        self._history: deque[bytes] = deque(maxlen=_HISTORY)
        self._tick = asyncio.Event()

    async def run(self) -> None:
        """Take frames until cancelled."""
        while True:
            self._history.append(event(self.frame()))
            self._tick.set()
            self._tick = asyncio.Event()
            await asyncio.sleep(_INTERVAL_S)

    async def page(self, _: Request) -> Response:
        """`GET /dashboard`."""
        return Response(_PAGE, media_type="text/html", headers=PAGE_HEADERS)

    async def feed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /dashboard/feed`: the frames of the last minutes, then each new one."""
        exchange = Exchange(scope, receive, send)
        async with exchange.attended():
            await exchange.start(EVENT_STREAM)
            await exchange.write(b"".join(self._history))
            while not self._drain.begun:
                await self._tick.wait()
                await exchange.write(self._history[-1])
            await exchange.finish()

    def frame(self) -> Frame:
        """The numbers now."""
        services, metrics = self._services, self._services.metrics
        workers = [metric for _, snapshot in services.client.snapshots() for metric in snapshot]
        latencies = sorted(metrics.recent_latencies(_LATENCY_WINDOW_S))
        return Frame(
            time=time.time(),
            requests=metrics.requests,
            generated_tokens=_total(workers, "carpool_generation_tokens_total"),
            embedding_inputs=metrics.inputs,
            rerank_documents=metrics.documents,
            answers=metrics.outcomes,
            p50_ms=_quantile_ms(latencies, 0.5),
            p95_ms=_quantile_ms(latencies, 0.95),
            in_flight=services.admission.taken,
            running=_total(workers, "carpool_sequences_running"),
            waiting=_total(workers, "carpool_sequences_waiting")
            + _total(workers, "carpool_encoder_inputs_waiting"),
            kv_blocks_used=_total(workers, "carpool_kv_blocks_used"),
            kv_blocks=_total(workers, "carpool_kv_blocks"),
            step_batch_size=_histogram(workers, "carpool_step_batch_size"),
            loop_lag_ms=metrics.loop_lag.value * 1e3,
            models=[
                ModelLine(state.name, state.task, state.phase, state.percent)
                for state in services.client.models.values()
            ],
        )


def _named(metrics: Iterable[Metric], name: str) -> Iterator[Metric]:
    return (metric for metric in metrics if metric.name == name)


def _total(metrics: Iterable[Metric], name: str) -> float:
    return sum(series.value for metric in _named(metrics, name) for series in metric.series)


def _histogram(metrics: Iterable[Metric], name: str) -> Histogram:
    """All series of the metric together. Metrics of one name have the same bounds."""
    bounds: tuple[float, ...] = ()
    counts: list[int] = []
    for metric in _named(metrics, name):
        bounds = metric.bounds
        counts = counts or [0] * (len(bounds) + 1)
        for series in metric.series:
            counts = [a + b for a, b in zip(counts, series.buckets, strict=True)]
    return Histogram(list(bounds), counts)


def _quantile_ms(latencies_s: list[float], share: float) -> float | None:
    """The nearest-rank quantile of ascending latencies."""
    if not latencies_s:
        return None
    return latencies_s[math.ceil(share * len(latencies_s)) - 1] * 1e3
