"""Requests beside 10,000 bulk documents on one device, under every policy, with real threads and arithmetic.

    python -m bench.inference_engine_policies [--documents 10000]

Four bulk engines and one interactive engine share a device (one core of BLAS). "one lane" is what happens
without priorities and slices: the documents and the requests in one queue of one engine. Then two backlogged
engines whose weights are 1 to 3 show what `wfq` gives each, and three engines whose callers wait for 20, 100
and 400 calls at most show how many deadlines `fifo` and `edf` meet at 1.5 times what the device can carry.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import asyncio
import random
import time
from typing import Any

import numpy as np

from bench.inference_engine_report import quantile, table, write
from carpool.inference_engine import (
    DeadlineExceeded,
    DeviceGate,
    EngineConfig,
    InferenceEngine,
    Policy,
    Priority,
)

SLICE_MS = 20.0
RATE = 20.0
WEIGHTS = np.random.default_rng(1).standard_normal((512, 512)).astype(np.float32) / 512**0.5
TOKENS = np.ones((32, 512), np.float32)


def model(items: list[int]) -> list[int]:
    """Eight layers over 32 tokens an item."""
    hidden = np.tile(TOKENS, (len(items), 1))
    for _ in range(8):
        hidden = np.maximum(hidden @ WEIGHTS, 0)
    return items


async def run(
    policy: Policy | None, documents: int, *, rate: float, bulk: bool = True
) -> tuple[list[float], float]:
    """The requests' latencies in ms and the documents per second; without a policy all share one lane."""
    gate = DeviceGate(policy or "fifo")
    config = EngineConfig(bulk_slice_ms=SLICE_MS, max_queue_ms=600_000)
    engines = [InferenceEngine(model, config, gate=gate, name=f"bulk{i}") for i in range(4 if policy else 1)]
    chat = InferenceEngine(model, config, gate=gate, name="chat") if policy else engines[0]
    lane = Priority.BULK if policy else Priority.INTERACTIVE
    latencies: list[float] = []

    async def request() -> None:
        asked = time.perf_counter()
        await chat.submit(0)
        latencies.append((time.perf_counter() - asked) * 1e3)

    async def requests(until: asyncio.Event) -> None:
        chance = random.Random(2)
        async with asyncio.TaskGroup() as group:
            while not until.is_set():
                await asyncio.sleep(chance.expovariate(rate))
                group.create_task(request())

    for engine in {*engines, chat}:
        engine.start()
    for engine in {*engines, chat}:  # the model's first call and the cost fit
        for count in (1, 8, 16, 32):
            await asyncio.gather(*(engine.submit(i) for i in range(count)))
    done = asyncio.Event()
    asking = asyncio.create_task(requests(done)) if rate else None
    started = time.perf_counter()
    if bulk:
        futures = []
        for index in range(documents):
            futures.append(engines[index % len(engines)].enqueue(index, priority=lane))
            if index % 64 == 63:
                await asyncio.sleep(0)
        await asyncio.gather(*futures)
    else:
        await asyncio.sleep(10.0)
    elapsed = time.perf_counter() - started
    done.set()
    if asking is not None:
        await asking
    for engine in {*engines, chat}:
        await engine.stop()
    return latencies, documents / elapsed


async def shares(seconds: float = 10.0) -> list[dict[str, Any]]:
    """What two engines with work without end get of the device under `wfq`; one's calls are longer."""
    gate = DeviceGate("wfq")
    engines = {
        weight: InferenceEngine(
            model,
            EngineConfig(weight=weight, max_batch_size=batch, max_queue_ms=float("inf")),
            gate=gate,
            name=f"weight {weight:g}",
        )
        for weight, batch in ((1.0, 8), (3.0, 2))
    }
    for engine in engines.values():
        engine.start()
    backlog = [engine.enqueue(item) for engine in engines.values() for item in range(20_000)]
    await asyncio.sleep(seconds)
    used = {weight: gate.used_ms[f"weight {weight:g}"] for weight in engines}
    for future in backlog:
        future.cancel()
    for engine in engines.values():
        await engine.stop()
    total, weights = sum(used.values()), sum(engines)
    return [
        {
            "weight": w,
            "due share": w / weights,
            "share of the device": used[w] / total,
            "ratio": used[w] / total * weights / w,
        }
        for w in engines
    ]


async def deadlines_met(policy: Policy, *, bursts: int = 4, overload: float = 1.5) -> float:
    """The share of deadlines met in bursts of 200 calls' time at `overload` times what the device can do."""
    gate = DeviceGate(policy)
    started = time.perf_counter()
    for _ in range(20):
        model([0] * 4)
    call_s = (time.perf_counter() - started) / 20
    config = EngineConfig(max_batch_size=1)
    patience = {"short": 20 * call_s, "middle": 100 * call_s, "long": 400 * call_s}
    engines = {
        name: InferenceEngine(lambda items: model(items * 4)[:1], config, gate=gate, name=name)
        for name in patience
    }
    chance = random.Random(1)
    met = []

    async def request(name: str) -> None:
        try:
            await engines[name].submit(0, deadline=time.monotonic() + patience[name])
        except DeadlineExceeded:
            met.append(False)
        else:
            met.append(True)

    for engine in engines.values():
        engine.start()
    async with asyncio.TaskGroup() as group:
        for _ in range(bursts):
            due = time.perf_counter()
            ends = due + 200 * call_s
            while due < ends:
                due += chance.expovariate(overload / call_s)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(request(chance.choice([*patience])))
            await asyncio.sleep(400 * call_s)
    for engine in engines.values():
        await engine.stop()
    return sum(met) / len(met)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    options = parser.parse_args()
    unloaded, _ = asyncio.run(run("priority", 0, rate=RATE, bulk=False))
    _, alone = asyncio.run(run("priority", options.documents, rate=0))
    allowed = max(2 * quantile(unloaded, 0.99), quantile(unloaded, 0.99) + SLICE_MS)
    rows: list[dict[str, Any]] = [
        {
            "policy": "unloaded",
            "request p50 ms": quantile(unloaded, 0.5),
            "request p99 ms": quantile(unloaded, 0.99),
            "documents/s": 0.0,
            "of the rate alone": 0.0,
            "holds": "",
        }
    ]
    policies: tuple[Policy | None, ...] = (None, "fifo", "priority", "wfq", "edf")
    for policy in policies:
        latencies, rate = asyncio.run(run(policy, options.documents, rate=RATE))
        p99 = quantile(latencies, 0.99)
        rows.append(
            {
                "policy": policy or "one lane",
                "request p50 ms": quantile(latencies, 0.5),
                "request p99 ms": p99,
                "documents/s": rate,
                "of the rate alone": rate / alone,
                "holds": "yes" if p99 <= allowed and rate >= 0.7 * alone else "no",
            }
        )
    met = {policy: asyncio.run(deadlines_met(policy)) for policy in ("fifo", "edf")}
    write(
        "inference_engine_policies",
        rows,
        f"{RATE:g} requests/s; slices of {SLICE_MS:g} ms; alone {alone:,.0f} documents/s. It holds if the "
        f"requests' p99 is at most {allowed:.1f} ms (the larger of twice unloaded and unloaded plus one "
        "slice) and the documents keep 70 % of their rate.\n\n"
        f"`wfq`, two engines with work without end:\n\n{table(asyncio.run(shares()))}\n"
        "Deadlines met at 1.5 times the load the device can carry: "
        f"{met['fifo']:.0%} by `fifo`, {met['edf']:.0%} by `edf`.",
    )


if __name__ == "__main__":
    main()
