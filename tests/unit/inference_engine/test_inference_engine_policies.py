"""What each device policy is good for, in simulations: real engines and gate, models on a manual clock."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from carpool.inference_engine import (
    DeadlineExceeded,
    DeviceGate,
    EngineConfig,
    InferenceEngine,
    ManualClock,
    Policy,
    Priority,
)

SLICE_MS = 20.0
DOCUMENTS = 10_000


def model(
    clock: ManualClock, overhead_s: float, item_s: float
) -> Callable[[list[int]], Awaitable[list[int]]]:
    async def run(items: list[int]) -> list[int]:
        await clock.sleep(overhead_s + item_s * len(items))
        return items

    return run


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


async def embed_documents(policy: Policy, *, interactive_rate: float) -> tuple[list[float], float]:
    """Four bulk engines embed 10,000 documents while one answers requests.

    Returns the requests' latencies in ms and the documents per second.
    """
    clock = ManualClock()
    gate = DeviceGate(policy, clock=clock)
    chance = random.Random(1)
    config = EngineConfig(bulk_slice_ms=SLICE_MS)
    bulk = [
        InferenceEngine(model(clock, 0.002, 0.001), config, gate=gate, name=f"bulk{i}", clock=clock)
        for i in range(4)
    ]
    chat = InferenceEngine(model(clock, 0.002, 0.001), config, gate=gate, name="chat", clock=clock)
    latencies: list[float] = []

    async def request() -> None:
        asked = clock.time()
        await chat.submit(0)
        latencies.append((clock.time() - asked) * 1e3)

    for engine in (*bulk, chat):
        engine.start()
    documents = [bulk[i % 4].enqueue(i, priority=Priority.BULK) for i in range(DOCUMENTS)]
    requests = []
    while not all(document.done() for document in documents[-8:]):
        if interactive_rate:
            await clock.advance(chance.expovariate(interactive_rate))
            requests.append(asyncio.create_task(request()))
        else:
            await clock.advance(0.010)
    await asyncio.gather(*documents)
    seconds = clock.time()
    await clock.advance(1.0)
    await asyncio.gather(*requests)
    for engine in (*bulk, chat):
        await engine.stop()
    return latencies, DOCUMENTS / seconds


async def test_priority_keeps_requests_fast_under_bulk_work_and_bulk_work_at_its_rate() -> None:
    unloaded = 3.0  # ms: one item
    _, alone = await embed_documents("priority", interactive_rate=0)
    latencies, rate = await embed_documents("priority", interactive_rate=30)
    assert len(latencies) > 300
    assert quantile(latencies, 0.99) <= max(2 * unloaded, unloaded + SLICE_MS)
    assert rate >= 0.7 * alone
    in_order, _ = await embed_documents("fifo", interactive_rate=30)
    assert quantile(in_order, 0.99) > 2 * (unloaded + SLICE_MS)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (2.0, 5.0)])
async def test_wfq_shares_of_engines_converge_to_their_weights(weights: tuple[float, float]) -> None:
    clock = ManualClock()
    gate = DeviceGate("wfq", clock=clock)
    engines = [
        InferenceEngine(
            model(clock, 0.002, item_s), EngineConfig(weight=weight), gate=gate, name=f"{i}", clock=clock
        )
        for i, (weight, item_s) in enumerate(zip(weights, (0.001, 0.0003), strict=True))
    ]
    for engine in engines:
        engine.start()
    backlog = [engine.enqueue(item) for engine in engines for item in range(20_000)]
    await clock.advance(5.0)
    for index, weight in enumerate(weights):
        share = gate.used_ms[f"{index}"] / sum(gate.used_ms.values())
        assert share == pytest.approx(weight / sum(weights), rel=0.05)
    for future in backlog:
        future.cancel()
    await clock.advance(1.0)  # lets the batches end that are on the device
    for engine in engines:
        await engine.stop()


async def deadlines_met(policy: Policy) -> float:
    """The share of deadlines met at 1.5 times what the device can do, in bursts of two seconds.

    Three models, 10 ms for each request; one model's callers wait 0.2 s at most, the others' 1 s and 4 s.
    """
    clock = ManualClock()
    gate = DeviceGate(policy, clock=clock)
    chance = random.Random(1)
    config = EngineConfig(max_batch_size=1)
    patience = {"short": 0.2, "middle": 1.0, "long": 4.0}
    engines = {
        name: InferenceEngine(model(clock, 0.010, 0.0), config, gate=gate, name=name, clock=clock)
        for name in patience
    }
    met = asked = 0

    async def request(name: str) -> None:
        nonlocal met
        try:
            await engines[name].submit(0, deadline=clock.time() + patience[name])
        except DeadlineExceeded:
            return
        met += 1

    for engine in engines.values():
        engine.start()
    requests = []
    for _ in range(5):
        burst_ends = clock.time() + 2.0
        while clock.time() < burst_ends:
            await clock.advance(chance.expovariate(150.0))
            requests.append(asyncio.create_task(request(chance.choice([*patience]))))
            asked += 1
        await clock.advance(4.0)
    await asyncio.gather(*requests)
    for engine in engines.values():
        await engine.stop()
    return met / asked


async def test_edf_meets_more_deadlines_than_fifo_under_overload() -> None:
    fifo, edf = await deadlines_met("fifo"), await deadlines_met("edf")
    assert edf > fifo + 0.05
