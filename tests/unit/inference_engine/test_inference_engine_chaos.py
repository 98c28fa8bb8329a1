"""Everything goes wrong at once, and still every request has exactly one outcome, the right one.

`CARPOOL_CHAOS_REQUESTS` sets the number of requests; `make chaos` runs 10,000.
"""

import asyncio
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from carpool.inference_engine import (
    BatchEvent,
    DeadlineExceeded,
    DeviceGate,
    EngineConfig,
    EngineStopped,
    InferenceEngine,
    ManualClock,
    ModelThreadDied,
    Priority,
    QueueFull,
)

REQUESTS = int(os.environ.get("CARPOOL_CHAOS_REQUESTS", "1000"))
MEMORY = 600.0  # cost that fits the pretended device


class Poison(ValueError):
    """Names the item that made a call fail."""


@dataclass(frozen=True)
class Item:
    number: int
    kind: str
    cost: float


class Model:
    """Slow at random, fails by what is in the batch, and counts what it was given."""

    def __init__(self, seed: int) -> None:
        self.computed: Counter[int] = Counter()
        self.threads: set[threading.Thread] = set()
        self.most_at_once = 0
        self.meeting: threading.Barrier | None = None
        """Where calls wait for each other."""
        self._inside = 0
        self._lock = threading.Lock()
        self._random = random.Random(seed)

    def __call__(self, items: list[Item]) -> list[int | Exception]:
        with self._lock:
            self.threads.add(threading.current_thread())
            self.computed.update(item.number for item in items)
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
        try:
            if self.meeting is not None:
                self.meeting.wait(60)
            return self._results(items)
        finally:
            with self._lock:
                self._inside -= 1

    def _results(self, items: list[Item]) -> list[int | Exception]:
        if self._random.random() < 0.05:
            time.sleep(self._random.random() / 500)
        if len(items) * max(item.cost for item in items) > MEMORY:
            raise MemoryError("pretended device")
        for item in items:
            if item.kind == "raises":
                raise Poison(item.number)
            if item.kind == "kills":
                raise SystemExit(item.number)
            if item.kind == "no memory":
                raise RuntimeError(f"CUDA out of memory, item {item.number}")
        return [Poison(item.number) if item.kind == "returns an error" else -item.number for item in items]


KINDS = {"healthy": 90, "raises": 3, "kills": 1, "no memory": 1, "returns an error": 2}


def check(item: Item, outcome: object) -> str:
    """The one outcome an item may have, given that its caller stayed."""
    match outcome:
        case DeadlineExceeded():
            return "deadline"
        case QueueFull():
            assert outcome.retry_after_s > 0
            return "full"
        case EngineStopped():
            return "stopped"
        case _:
            pass
    match item.kind:
        case "healthy":
            assert outcome == -item.number
        case "raises" | "returns an error":
            assert isinstance(outcome, Poison)
            assert outcome.args == (item.number,)
        case "kills":
            assert isinstance(outcome, ModelThreadDied)
            assert isinstance(outcome.__cause__, SystemExit)
            assert outcome.__cause__.code == item.number
        case _:
            assert str(outcome) == f"CUDA out of memory, item {item.number}"
    return item.kind


@pytest.mark.parametrize(("seed", "concurrency"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("batch_wait_ms", [0.0, 2.0])
async def test_every_request_has_exactly_one_outcome(
    seed: int, concurrency: int, batch_wait_ms: float
) -> None:
    chance = random.Random(seed)
    model = Model(seed)
    events: list[BatchEvent] = []
    gate = DeviceGate("priority")
    config = EngineConfig(batch_wait_ms=batch_wait_ms, max_queue_items=400, max_overtakes=4)
    ended: Counter[str] = Counter()

    places = asyncio.Semaphore(450)  # a little more than the queue takes

    async def request(engine: InferenceEngine[Item, int], number: int) -> None:
        try:
            await served(engine, number)
        finally:
            places.release()

    async def served(engine: InferenceEngine[Item, int], number: int) -> None:
        (kind,) = chance.choices([*KINDS], [*KINDS.values()])
        item = Item(number, kind, cost=float(chance.randint(1, 100)))
        deadline = time.monotonic() + chance.random() / 10 if chance.random() < 0.1 else None
        attempt = asyncio.create_task(
            engine.submit(
                item,
                priority=chance.choice([*Priority]),
                deadline=deadline,
                tenant=chance.choice("abc"),
                cost=item.cost,
            )
        )
        if chance.random() < 0.1:
            asyncio.get_running_loop().call_later(chance.random() / 100, attempt.cancel)
        try:
            outcome: object = await attempt
        except asyncio.CancelledError:
            ended["cancelled"] += 1
            return
        except Exception as error:
            outcome = error
        ended[check(item, outcome)] += 1

    async def policies() -> None:
        while True:
            gate.policy = chance.choice(["fifo", "priority", "wfq", "edf"])
            await asyncio.sleep(0.001)

    async def neighbour() -> None:
        while True:
            async with gate.turn("neighbour", priority=Priority.BULK):
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)

    requests: list[asyncio.Task[None]] = []
    async with InferenceEngine(
        model, config, concurrency=concurrency, gate=gate, observe=events.append
    ) as engine:
        model.meeting = threading.Barrier(concurrency)  # later, others at the gate may keep some out
        await asyncio.gather(*(engine.submit(Item(-1 - i, "healthy", 1.0)) for i in range(concurrency)))
        model.meeting = None
        disturbances = [asyncio.create_task(policies()), asyncio.create_task(neighbour())]
        while len(requests) < REQUESTS:
            for _ in range(min(chance.randint(1, 120), REQUESTS - len(requests))):
                await places.acquire()
                requests.append(asyncio.create_task(request(engine, len(requests))))
            await asyncio.sleep(chance.random() / 100)
        # Leaving the block drains what is still in flight.
    await asyncio.gather(*requests)
    for task in disturbances:
        task.cancel()
    await asyncio.gather(*disturbances, return_exceptions=True)

    assert sum(ended.values()) == REQUESTS
    assert ended["healthy"] > REQUESTS / 2
    assert ended["raises"] > 0
    assert len(engine.queue) == 0
    assert engine.queue.cost == 0
    assert len(model.threads) > ended["kills"] > 0
    assert model.most_at_once == concurrency
    assert all(event.items <= config.max_batch_size for event in events)
    async with gate.turn("free at the end"):
        assert gate.waiting == 0


async def test_work_of_callers_who_left_is_never_computed() -> None:
    """Cancelled before their batch was formed: none of these may reach the model."""
    model = Model(0)
    gate = DeviceGate()
    chance = random.Random(5)
    async with InferenceEngine(model, EngineConfig(max_queue_items=REQUESTS), gate=gate) as engine:
        async with gate.turn("busy"):
            tasks = [asyncio.create_task(engine.submit(Item(i, "healthy", 1.0))) for i in range(REQUESTS)]
            await ManualClock().advance()  # all are queued
            left = {number for number in range(REQUESTS) if chance.random() < 0.5}
            for number in left:
                tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert model.computed.keys() == set(range(REQUESTS)) - left
    assert set(model.computed.values()) == {1}
