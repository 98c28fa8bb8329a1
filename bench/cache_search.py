"""Exact search over one partition of the cache, on one core, and what it does to the event loop.

    python -m bench.cache_search [--rounds 25]

Random unit vectors of 384 dimensions; each query lies near one of them. CPU time of the searching thread is
given beside wall time: on a machine that others use it is the steadier of the two.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy is loaded

import numkong
import numpy as np
import uvloop
from numpy.typing import NDArray

from bench.inference_engine_report import quantile, write
from carpool.cache.index import VectorIndex
from carpool.cache.searcher import Searcher

DIMENSIONS = 384
SIZES = (10_000, 30_000, 100_000)
FLOOR, LIMIT = 0.8, 8
CALLERS = 16


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row at length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def timed(search: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median wall and CPU milliseconds of a call."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.thread_time()
        search()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
    return statistics.median(walls) * 1e3, statistics.median(cpus) * 1e3


async def under_load(index: VectorIndex, queries: NDArray[np.float32], seconds: float) -> dict[str, float]:
    """Searches/s of callers in a closed loop, and the delays of the event loop that serves them, in ms."""
    searcher, done, delays = Searcher(LIMIT), 0, []
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await searcher.nearest(index, queries[(number + done) % len(queries)], FLOOR)
            done += 1
            await asyncio.sleep(0)

    async def watch() -> None:
        while time.perf_counter() < end:
            slept = time.perf_counter()
            await asyncio.sleep(0.001)
            delays.append((time.perf_counter() - slept - 0.001) * 1e3)

    cpu = time.process_time()
    await asyncio.gather(watch(), *(caller(number) for number in range(CALLERS)))
    cpu = time.process_time() - cpu
    searcher.close()
    return {
        "rate": done / seconds,
        "cpu": cpu / done * 1e3,
        "p50": quantile(delays, 0.5),
        "p99": quantile(delays, 0.99),
    }


def measure(size: int, rounds: int, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """The rows of the table for a partition of this size, and a line on searches under load."""
    chance = np.random.default_rng(size)
    vectors = unit(chance.standard_normal((size, DIMENSIONS), dtype=np.float32))
    index = VectorIndex(DIMENSIONS)
    for number, vector in enumerate(vectors):
        index.add(number.to_bytes(32, "big"), vector)
    noise = chance.standard_normal((64, DIMENSIONS), dtype=np.float32) * np.float32(0.02)
    queries = unit(vectors[chance.integers(0, size, 64)] + noise)
    half, half_query = vectors.astype(np.float16), queries[:1].astype(np.float16)
    contestants: dict[str, Callable[[], object]] = {
        "Carpool, 1 query": lambda: index.search(queries[:1], FLOOR, LIMIT),
        "Carpool, 4 at once": lambda: index.search(queries[:4], FLOOR, LIMIT),
        "Carpool, 16 at once": lambda: index.search(queries[:16], FLOOR, LIMIT),
        "NumPy float32, 1 query": lambda: np.flatnonzero(vectors @ queries[0] > FLOOR),
        "numkong float16, 1 query": lambda: numkong.cdist(half_query, half, metric="dot"),
    }
    rows = []
    for name, search in contestants.items():
        wall_ms, cpu_ms = timed(search, rounds)
        rows.append({"entries": f"{size:,}", "search": name, "wall ms": wall_ms, "CPU ms": cpu_ms})
    found = uvloop.run(under_load(index, queries, seconds))
    load = (
        f"- {size:,} entries: {found['rate']:,.0f} searches/s, {found['cpu']:.2f} ms of CPU each,"
        f" delays of the event loop p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms"
    )
    return rows, load


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    measured = [measure(size, arguments.rounds, arguments.seconds) for size in SIZES]
    notes = (
        f"Medians of {arguments.rounds} on one core, BLAS on one thread.\n\n{CALLERS} callers in a closed"
        " loop, the event loop and the searching thread on this one core:\n\n"
    )
    write(
        "cache_search",
        [row for rows, _ in measured for row in rows],
        notes + "\n".join(load for _, load in measured),
    )


if __name__ == "__main__":
    main()
