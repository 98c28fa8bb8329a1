"""Single queries while documents are embedded through the same port, and the event loop meanwhile."""

import math
import re
from typing import Any

from bench.encoders import wrk
from bench.encoders.contestants import Server
from bench.encoders.workload import BULK_CONNECTIONS, body, bulk_bodies, bulk_texts, single_bodies, text
from carpool.encoders import EncoderConfig

QUERY_WORDS = 10
LAG_INPUTS = 2048
LAG_CALLS = 5
KEPT_AT_LEAST = 0.7
"""Asked of the bulk's rate beside the queries, in parts of its rate alone."""


def query_under_ingest(server: Server, seconds: float) -> dict[str, Any]:
    """Latencies in ms of one caller's queries, one after another: alone, and beside the bulk."""
    queries = single_bodies(QUERY_WORDS)
    texts = bulk_texts()
    calls = bulk_bodies(texts)
    alone = wrk.measure(server.url, queries, connections=1, seconds=seconds)
    bulk = wrk.measure(server.url, calls, connections=BULK_CONNECTIONS, seconds=600, limit=len(calls))
    span = math.floor(0.8 * bulk.seconds)
    with wrk.load(server.url, calls, connections=BULK_CONNECTIONS, seconds=600, limit=len(calls)) as running:
        beside = wrk.measure(server.url, queries, connections=1, seconds=span)
        overlap = not running.ended
        bulk_beside = running.result()
    slice_ms = EncoderConfig().bulk_slice_ms
    bound = max(2 * alone.p99, alone.p99 + slice_ms)
    kept = bulk.seconds / bulk_beside.seconds
    return {
        "queries alone/s": alone.rate,
        "alone p50 ms": alone.p50,
        "alone p99 ms": alone.p99,
        "queries beside the bulk/s": beside.rate,
        "beside p50 ms": beside.p50,
        "beside p99 ms": beside.p99,
        "a bulk slice, ms": slice_ms,
        "asked: beside p99 ms at most, twice alone or one slice more": bound,
        "p99 is within it": beside.p99 <= bound,
        "bulk alone texts/s": len(texts) / bulk.seconds,
        "bulk beside texts/s": len(texts) / bulk_beside.seconds,
        "bulk kept": kept,
        "asked: bulk kept at least": KEPT_AT_LEAST,
        "it is": kept >= KEPT_AT_LEAST,
        "failed": alone.failed + bulk.failed + beside.failed + bulk_beside.failed,
        "queries ended before the bulk": overlap,
    }


def event_loop_lag(server: Server) -> dict[str, Any]:
    """The delays of the gateway's event loop while calls of 2,048 inputs are answered with floats."""
    many = body([text(QUERY_WORDS, seed) for seed in range(LAG_INPUTS)])
    before = _lags(server)
    load = wrk.measure(server.url, [many], connections=1, seconds=600, limit=LAG_CALLS)
    after = _lags(server)
    seen = {bound: count - before[bound] for bound, count in after.items()}
    observations = seen[math.inf]
    p99 = min(bound for bound, count in seen.items() if count >= 0.99 * observations)
    return {
        "calls": load.requests,
        "failed": load.failed,
        "observations": observations,
        "p99 ms at most": p99 * 1e3,
        "within 5 ms": seen[0.005] / observations,
    }


def _lags(server: Server) -> dict[float, float]:
    """Observations by upper bound, in seconds."""
    page = server.get(f"{server.root}/metrics").decode()
    found = re.findall(r'^carpool_event_loop_delay_seconds_bucket\{.*?le="(.*?)"\} (\S+)$', page, re.M)
    return {float(bound): float(count) for bound, count in found}
