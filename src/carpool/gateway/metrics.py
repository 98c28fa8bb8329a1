"""What the gateway tells the telemetry registry; and `/metrics`, which adds what the workers tell."""

import time
from collections import deque
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from carpool.gateway.call import Call
from carpool.telemetry import Registry, Snapshot, render

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REMEMBERED = 4096
"""Latencies kept for the dashboard's percentiles."""


class GatewayMetrics:
    """The instruments of the gateway, and the last latencies of requests to models."""

    def __init__(self, registry: Registry) -> None:
        counter, gauge, histogram = registry.counter, registry.gauge, registry.histogram
        self._requests = counter("carpool_requests_total", "Requests by route, method and status.")
        self._seconds = histogram("carpool_request_seconds", "Time from a request's arrival to its end.")
        self._first_token = histogram(
            "carpool_time_to_first_token_seconds", "Time from a request's arrival to its first text."
        )
        self._tokens = counter(
            "carpool_tokens_total", "Tokens told in usage, by model, kind and the outcome of the cache."
        )
        self._inputs = counter("carpool_embedding_inputs_total", "Inputs turned into vectors.")
        self._documents = counter("carpool_rerank_documents_total", "Documents scored against a query.")
        self._outcomes = counter("carpool_answers_total", "Complete answers by cache outcome.")
        self.in_flight = gauge("carpool_requests_in_flight", "Requests inside the gateway.").labelled({})
        self.loop_lag = gauge(
            "carpool_event_loop_lag_seconds", "Longest delay of the event loop in the last second."
        ).labelled({})
        self.loop_delay = histogram(
            "carpool_event_loop_delay_seconds", "Delays of the event loop, one observation every 50 ms."
        )
        # (end by time.perf_counter(), seconds) of the last requests to models.
        self._latencies: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def finished(self, call: Call, method: str, seconds: float) -> None:
        """Record the end of a request."""
        method = method if method in _METHODS else "other"
        self._requests.add(route=call.route, method=method, status=str(call.status))
        self._seconds.observe(seconds, route=call.route)
        asked = _asks_a_model(method, call.route)
        if asked and call.status == 200 and call.error is None:
            self._latencies.append((call.began + seconds, seconds))

    def first_token(self, seconds: float, model: str, outcome: str) -> None:
        """Record the first text of an answer."""
        self._first_token.observe(seconds, model=model, cache=outcome)

    def answered(self, model: str, outcome: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Record a complete answer."""
        self._outcomes.add(cache=outcome)
        self._tokens.add(prompt_tokens, model=model, kind="prompt", cache=outcome)
        self._tokens.add(completion_tokens, model=model, kind="completion", cache=outcome)

    def embedded(self, model: str, inputs: int, tokens: int) -> None:
        """Record a complete embeddings reply."""
        self._inputs.add(inputs, model=model)
        self._tokens.add(tokens, model=model, kind="prompt", cache="bypass")

    def reranked(self, model: str, documents: int, tokens: int) -> None:
        """Record a complete set of scores."""
        self._documents.add(documents, model=model)
        self._tokens.add(tokens, model=model, kind="prompt", cache="bypass")

    def recent_latencies(self, window_s: float) -> list[float]:
        """Seconds that requests to models took which ended in the last `window_s`, and well."""
        since = time.perf_counter() - window_s
        return [seconds for end, seconds in self._latencies if end >= since]

    @property
    def requests(self) -> float:
        """All requests so far that were meant for a model."""
        return sum(
            series.value
            for series in self._requests.series.values()
            for labels in (dict(series.labels),)
            if _asks_a_model(labels["method"], labels["route"])
        )

    @property
    def inputs(self) -> float:
        """All embedding inputs so far."""
        return self._inputs.total()

    @property
    def documents(self) -> float:
        """All documents scored so far."""
        return self._documents.total()

    @property
    def outcomes(self) -> dict[str, float]:
        """Answers by cache outcome so far."""
        return {dict(series.labels)["cache"]: series.value for series in self._outcomes.series.values()}


def _asks_a_model(method: str, route: str) -> bool:
    return method == "POST" and not route.startswith("/admin/")


Snapshots = Callable[[], list[tuple[dict[str, str], Snapshot]]]


def metrics_page(registry: Registry, workers: Snapshots) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that renders this process's metrics and the newest of the workers."""

    async def page(_: Request) -> Response:
        text = render([({}, registry.snapshot()), *workers()])
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return page
