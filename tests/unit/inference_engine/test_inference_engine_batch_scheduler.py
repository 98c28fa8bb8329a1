"""Dispatch rules, failures and what the observer is told."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from carpool.inference_engine import (
    BatchEvent,
    DeviceGate,
    EngineConfig,
    EngineStopped,
    InferenceEngine,
    InvalidConfig,
    ItemFailed,
    ManualClock,
    ModelThreadDied,
    Priority,
    Release,
    WrongResultCount,
)


@dataclass
class Model:
    """An asynchronous model on a manual clock: `overhead_s` per call and `item_s` per item."""

    clock: ManualClock
    overhead_s: float = 0.010
    item_s: float = 0.001
    fail: Callable[[list[Any]], None] = lambda items: None
    batches: list[list[Any]] = field(default_factory=list)
    started: list[float] = field(default_factory=list)

    async def __call__(self, items: list[Any]) -> list[Any]:
        self.batches.append(items)
        self.started.append(self.clock.time())
        await self.clock.sleep(self.overhead_s + self.item_s * len(items))
        self.fail(items)
        return [("result", item) for item in items]


@asynccontextmanager
async def running(engine: InferenceEngine[Any, Any]) -> AsyncIterator[InferenceEngine[Any, Any]]:
    engine.start()
    yield engine
    await engine.stop(drain=False)


async def outcomes(clock: ManualClock, futures: list[asyncio.Future[Any]]) -> list[Any]:
    while not all(future.done() for future in futures):
        await clock.advance(0.001)
    return await asyncio.gather(*futures, return_exceptions=True)


# Several batches at a time --------------------------------------------------------------------------------


async def test_batches_run_at_a_time_and_share_what_waits() -> None:
    clock = ManualClock()
    model = Model(clock)
    async with running(InferenceEngine(model, concurrency=2, clock=clock)) as engine:
        await outcomes(clock, [engine.enqueue(i) for i in range(20)])
        assert [len(batch) for batch in model.batches] == [10, 10]
        assert model.started == [0.0, 0.0]
        start = clock.time()
        futures = [engine.enqueue("alone")]
        await clock.advance(0.001)
        futures += [engine.enqueue("beside"), engine.enqueue("beside")]
        await clock.advance(0.001)
        futures += [engine.enqueue(i) for i in range(3)]  # both are busy
        await outcomes(clock, futures)
    assert model.batches[2:] == [["alone"], ["beside", "beside"], [0, 1, 2]]
    assert [when - start for when in model.started[2:]] == pytest.approx([0.0, 0.001, 0.011])


async def test_who_came_to_more_than_a_share_does_not_keep_it() -> None:
    clock = ManualClock()
    model = Model(clock, item_s=0.002)
    async with running(InferenceEngine(model, concurrency=2, clock=clock)) as engine:
        answered: asyncio.Queue[None] = asyncio.Queue()

        def ask_again(_: asyncio.Future[Any]) -> None:
            answered.put_nowait(None)

        def ask() -> asyncio.Future[Any]:
            future = engine.enqueue(0)
            future.add_done_callback(ask_again)
            return future

        futures = [ask()]
        await clock.advance(0.001)
        futures += [ask() for _ in range(23)]  # one of two is idle, and could take them all
        while len(futures) < 600:
            await clock.advance(0.001)
            while not answered.empty():
                answered.get_nowait()
                futures.append(ask())
        sizes = [len(batch) for batch in model.batches[-6:]]
        await outcomes(clock, futures)
    assert max(sizes) <= 13


async def test_failures_of_batches_beside_each_other_stay_their_own() -> None:
    clock = ManualClock()

    def fail(items: list[Any]) -> None:
        if 13 in items or 2 in items:
            raise ValueError("poisoned")

    model = Model(clock, fail=fail)
    async with running(InferenceEngine(model, concurrency=2, clock=clock)) as engine:
        found = await outcomes(clock, [engine.enqueue(i) for i in range(20)])
    assert [i for i, outcome in enumerate(found) if isinstance(outcome, ValueError)] == [2, 13]


async def test_what_runs_when_an_engine_is_abandoned_ends_in_every_thread() -> None:
    clock = ManualClock()
    model = Model(clock, overhead_s=1e6)
    engine: InferenceEngine[int, Any] = InferenceEngine(model, concurrency=2, clock=clock)
    engine.start()
    futures = [engine.enqueue(i) for i in range(100)]
    await clock.advance()
    assert len(model.batches) == 2
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await engine.stop()
    assert all(isinstance(future.exception(), EngineStopped) for future in futures)


async def test_the_backlog_is_worked_off_by_all() -> None:
    async def backlog_ms(concurrency: int) -> float:
        clock = ManualClock()
        model = Model(clock, overhead_s=0.0, item_s=0.010)
        async with running(InferenceEngine(model, concurrency=concurrency, clock=clock)) as engine:
            for size in (1, 4, 16, 2, 8):
                await outcomes(clock, [engine.enqueue(i) for i in range(size)])
            waiting = [engine.enqueue(i) for i in range(64)]
            predicted = engine.queue.backlog_ms
            await outcomes(clock, waiting)
        return predicted

    assert await backlog_ms(2) == pytest.approx(await backlog_ms(1) / 2, rel=0.2)


def test_at_least_one_batch_runs_at_a_time() -> None:
    with pytest.raises(InvalidConfig, match="concurrency"):
        InferenceEngine[int, int](lambda items: items, concurrency=0)


# Rules ----------------------------------------------------------------------------------------------------


async def test_eager_goes_at_once_and_accumulates_while_busy() -> None:
    clock = ManualClock()
    model = Model(clock)
    events: list[BatchEvent] = []
    async with running(InferenceEngine(model, clock=clock, observe=events.append)) as engine:
        futures = [engine.enqueue(0)]
        await clock.advance(0.001)
        futures += [engine.enqueue(i) for i in range(1, 8)]  # the model is busy until 0.011
        await outcomes(clock, futures)
    assert model.batches == [[0], [1, 2, 3, 4, 5, 6, 7]]
    assert model.started == pytest.approx([0.0, 0.011])
    assert [event.release for event in events] == [Release.IDLE, Release.IDLE]


async def test_eager_is_bounded_by_items() -> None:
    clock = ManualClock()
    model = Model(clock)
    events: list[BatchEvent] = []
    config = EngineConfig(max_batch_size=4)
    async with running(InferenceEngine(model, config, clock=clock, observe=events.append)) as engine:
        await outcomes(clock, [engine.enqueue(i) for i in range(10)])
    assert [len(batch) for batch in model.batches] == [4, 4, 2]
    assert [event.release for event in events] == [Release.FULL, Release.FULL, Release.IDLE]


@pytest.mark.parametrize(("items", "wait_ms"), [(8, 50.0), (32, 10.0)])
async def test_window_leaves_at_whichever_bound_comes_first(items: int, wait_ms: float) -> None:
    clock = ManualClock()
    model = Model(clock)
    events: list[BatchEvent] = []
    config = EngineConfig(max_batch_size=items, batch_wait_ms=wait_ms)
    async with running(InferenceEngine(model, config, clock=clock, observe=events.append)) as engine:
        await clock.advance(1.0)
        await outcomes(clock, [engine.enqueue(i) for i in range(items)])
        assert model.started == [1.0]  # full at once
        begun = clock.time()
        futures = [engine.enqueue(0)]
        await clock.advance(wait_ms / 2e3)
        futures.append(engine.enqueue(1))
        await outcomes(clock, futures)
        assert model.started[1] == pytest.approx(begun + wait_ms / 1e3)
    assert [len(batch) for batch in model.batches] == [items, 2]
    assert [event.release for event in events] == [Release.FULL, Release.WINDOW]
    assert events[1].wait_ms == pytest.approx(wait_ms)


async def test_a_new_config_holds_from_the_next_batch_on() -> None:
    clock = ManualClock()
    model = Model(clock)
    async with running(InferenceEngine(model, clock=clock)) as engine:
        engine.config = EngineConfig(max_batch_size=2)
        assert engine.config.max_batch_size == 2
        await outcomes(clock, [engine.enqueue(i) for i in range(4)])
    assert [len(batch) for batch in model.batches] == [2, 2]


async def test_similar_lengths_ride_together() -> None:
    clock = ManualClock()
    model = Model(clock)
    events: list[BatchEvent] = []
    config = EngineConfig(max_batch_size=4)
    async with running(InferenceEngine(model, config, clock=clock, observe=events.append)) as engine:
        lengths = [10, 500] * 4
        await outcomes(clock, [engine.enqueue(n, cost=float(n)) for n in lengths])
    assert model.batches == [[10] * 4, [500] * 4]
    assert [event.cost for event in events] == [40, 2000]
    assert [event.padding_share for event in events] == [0, 0]


# Events ---------------------------------------------------------------------------------------------------


async def test_the_observer_is_told_all_about_a_batch() -> None:
    clock = ManualClock()
    events: list[BatchEvent] = []
    gate = DeviceGate("edf", clock=clock)
    engine = InferenceEngine(Model(clock), gate=gate, name="minilm", clock=clock, observe=events.append)
    futures = [engine.enqueue("a", cost=10.0)]
    await clock.advance(0.005)
    futures.append(engine.enqueue("b", cost=30.0))
    async with running(engine):
        await outcomes(clock, futures)
    (event,) = events
    assert (event.model, event.policy, event.release, event.failed) == ("minilm", "edf", Release.IDLE, False)
    assert (event.items, event.cost) == (2, 60.0)
    assert event.padding_share == pytest.approx(1 / 3)
    assert event.wait_ms == pytest.approx(5.0)
    assert event.run_ms == pytest.approx(12.0)


@pytest.mark.parametrize(("priority", "widened"), [(Priority.INTERACTIVE, False), (Priority.BULK, True)])
async def test_only_batches_that_are_cut_to_a_slice_widen_its_margin(
    priority: Priority, widened: bool
) -> None:
    clock = ManualClock()
    model = Model(clock, overhead_s=0.0, item_s=0.015)
    async with running(InferenceEngine(model, EngineConfig(bulk_slice_ms=20.0), clock=clock)) as engine:
        for number in range(10):
            await outcomes(clock, [engine.enqueue(number, priority=priority)])
            model.item_s *= 1.1  # later than predicted, every time
        assert (engine.queue.cost_model.margin > 1.1) == widened


async def test_an_observer_that_raises_stops_nothing() -> None:
    clock = ManualClock()
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def observe(event: BatchEvent) -> None:
        raise RuntimeError("observer")

    async with running(InferenceEngine(Model(clock), clock=clock, observe=observe)) as engine:
        assert await outcomes(clock, [engine.enqueue(1)]) == [("result", 1)]
    assert [str(context["exception"]) for context in reported] == ["observer"]


# Failures -------------------------------------------------------------------------------------------------


def failing_on(*poison: object) -> Callable[[list[Any]], None]:
    def fail(items: list[Any]) -> None:
        if bad := [item for item in items if item in poison]:
            raise ValueError(f"poisoned by {bad}")

    return fail


async def test_a_failing_batch_is_bisected() -> None:
    clock = ManualClock()
    model = Model(clock, fail=failing_on(3, 11))
    events: list[BatchEvent] = []
    config = EngineConfig(max_batch_size=16)
    async with running(InferenceEngine(model, config, clock=clock, observe=events.append)) as engine:
        results = await outcomes(clock, [engine.enqueue(i) for i in range(16)])
    for item, result in enumerate(results):
        if item in (3, 11):
            assert isinstance(result, ValueError)
            assert str(result) == f"poisoned by [{item}]"
        else:
            assert result == ("result", item)
    assert sum(event.failed for event in events) == 1 + 2 * 4  # log2(16) levels for each, sharing the first


async def test_interactive_work_does_not_wait_for_a_bulk_bisection() -> None:
    clock = ManualClock()
    model = Model(clock, fail=failing_on(*range(8)))
    engine = InferenceEngine(model, EngineConfig(max_batch_size=8), clock=clock)
    for cost in (1.0, 1.0, 2.0, 4.0):
        engine.queue.cost_model.observe(cost, cost, cost)
    async with running(engine):
        futures = [engine.enqueue(i, priority=Priority.BULK) for i in range(8)]
        await clock.advance(0.020)
        futures.append(engine.enqueue("now"))
        await outcomes(clock, futures)
    assert model.batches.index(["now"]) == 2


async def test_an_exception_as_a_result_fails_its_item_only() -> None:
    def model(items: list[int]) -> list[int | Exception]:
        return [KeyError(i) if i == 1 else i for i in items]

    async with InferenceEngine[int, int](model) as engine:
        first, second = await asyncio.gather(engine.submit(0), engine.submit(1), return_exceptions=True)
    assert first == 0
    assert isinstance(second, KeyError)


async def test_an_asynchronous_model_can_fail_in_every_way() -> None:
    class Refusing:
        async def __call__(self, items: list[int]) -> list[int]:
            if items[0] == 0:
                raise asyncio.CancelledError
            if items[0] == 1:
                return []
            return items

    async with InferenceEngine(Refusing(), EngineConfig(max_batch_size=1)) as engine:
        results = await asyncio.gather(*(engine.submit(i) for i in range(3)), return_exceptions=True)
    assert isinstance(results[0], ModelThreadDied)
    assert isinstance(results[1], WrongResultCount)
    assert results[2] == 2


async def test_an_asynchronous_model_never_holds_up_the_event_loop() -> None:
    entered, leave = asyncio.Event(), threading.Event()
    home = asyncio.get_running_loop()
    loops = set()

    async def blocking(items: list[int]) -> list[int]:
        loops.add(asyncio.get_running_loop())
        home.call_soon_threadsafe(entered.set)
        assert leave.wait(10)
        return items

    async with InferenceEngine(blocking) as engine:
        first = engine.enqueue(1)
        await entered.wait()  # comes through only if the model has not got this loop
        leave.set()
        assert await first == 1
        assert await engine.submit(2) == 2
    assert len(loops) == 1
    assert home not in loops


@pytest.mark.parametrize("error", [StopIteration("end"), SystemExit(3), KeyboardInterrupt()])
async def test_errors_that_asyncio_cannot_carry_are_wrapped(error: BaseException) -> None:
    async with InferenceEngine[int, Any](lambda items: [error for _ in items]) as engine:
        with pytest.raises(ItemFailed) as failed:
            await engine.submit(1)
    assert failed.value.__cause__ is error


async def test_a_raised_stop_iteration_is_wrapped_too() -> None:
    def model(items: list[int]) -> list[int]:
        raise StopIteration

    async with InferenceEngine(model) as engine:
        with pytest.raises(ItemFailed):
            await engine.submit(1)


# Memory ---------------------------------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """As PyTorch names it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA"),
        RuntimeError("Out of memory"),
        RuntimeError("Failed to allocate memory"),
    ],
)
async def test_out_of_memory_halves_the_batch_and_is_remembered(error: Exception) -> None:
    clock = ManualClock()

    def fail(items: list[Any]) -> None:
        if len(items) > 5:
            raise error

    model = Model(clock, fail=fail)
    async with running(InferenceEngine(model, EngineConfig(max_batch_size=16), clock=clock)) as engine:
        results = await outcomes(clock, [engine.enqueue(i) for i in range(32)])
        assert results == [("result", i) for i in range(32)]
        assert engine.queue.memory_ceiling == 4
    assert [len(batch) for batch in model.batches] == [16, 8, 4, 4, 8, 4, 4, 4, 4, 4, 4]


async def test_other_errors_leave_the_ceiling_alone() -> None:
    clock = ManualClock()
    async with running(InferenceEngine(Model(clock, fail=failing_on(1)), clock=clock)) as engine:
        await outcomes(clock, [engine.enqueue(i) for i in range(4)])
        assert engine.queue.memory_ceiling == float("inf")


async def test_one_item_that_does_not_fit_fails_alone() -> None:
    clock = ManualClock()

    def fail(items: list[Any]) -> None:
        if "huge" in items:
            raise MemoryError

    async with running(InferenceEngine(Model(clock, fail=fail), clock=clock)) as engine:
        results = await outcomes(clock, [engine.enqueue(item) for item in ("a", "huge", "b")])
    assert results[0] == ("result", "a")
    assert isinstance(results[1], MemoryError)
    assert results[2] == ("result", "b")


async def test_an_item_that_never_fits_leaves_the_ceiling_as_it_was() -> None:
    clock = ManualClock()

    def fail(items: list[Any]) -> None:
        if "huge" in items or len(items) > 8:
            raise MemoryError

    model = Model(clock, fail=fail)
    async with running(InferenceEngine(model, EngineConfig(max_batch_size=16), clock=clock)) as engine:
        await outcomes(clock, [engine.enqueue(i) for i in range(16)])
        assert engine.queue.memory_ceiling == 8
        await outcomes(clock, [engine.enqueue("huge" if i == 5 else i) for i in range(8)])
        assert engine.queue.memory_ceiling == 8
