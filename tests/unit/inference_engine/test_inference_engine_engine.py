"""The front door: submitting, cancelling, draining, the decorator."""

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

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
    batched,
)


class Held:
    """A model in a thread that the test holds and lets go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.entered.release()
        assert self.let_go.acquire(timeout=60)
        return items

    async def until_entered(self) -> None:
        await asyncio.to_thread(self.entered.acquire, timeout=60)


async def test_many_callers_share_calls() -> None:
    calls: list[int] = []

    def model(items: list[int]) -> list[int]:
        calls.append(len(items))
        return [2 * item for item in items]

    async with InferenceEngine(model) as engine:
        assert await asyncio.gather(*map(engine.submit, range(100))) == [2 * i for i in range(100)]
    assert sum(calls) == 100
    assert len(calls) < 10


async def test_a_cancelled_request_is_never_computed() -> None:
    model = Held()
    async with InferenceEngine(model) as engine:
        first = asyncio.create_task(engine.submit(0))
        await model.until_entered()
        waiting = [asyncio.create_task(engine.submit(i)) for i in (1, 2, 3)]
        await ManualClock().advance()  # all three are queued
        waiting[1].cancel()
        model.let_go.release(2)
        assert await first == 0
        assert (await waiting[0], await waiting[2]) == (1, 3)
        assert waiting[1].cancelled()
    assert model.batches == [[0], [1, 3]]


async def test_a_request_cancelled_while_it_runs_is_dropped_safely() -> None:
    model = Held()
    async with InferenceEngine(model) as engine:
        running = [asyncio.create_task(engine.submit(i)) for i in range(2)]
        await model.until_entered()
        running[0].cancel()
        model.let_go.release()
        assert await running[1] == 1
        assert running[0].cancelled()


async def test_a_deadline_holds_while_the_model_runs() -> None:
    model = Held()
    clock = ManualClock()
    async with InferenceEngine(model, clock=clock) as engine:
        running = asyncio.create_task(engine.submit(0, deadline=1.0))
        await model.until_entered()
        await clock.advance(1.0)
        with pytest.raises(DeadlineExceeded):
            await running
        model.let_go.release()


async def test_what_runs_is_work_until_it_is_done() -> None:
    model = Held()
    async with InferenceEngine(model) as engine:
        future = engine.enqueue(0)
        assert engine.has_work
        await model.until_entered()
        future.cancel()
        await asyncio.sleep(0)
        assert engine.has_work
        model.let_go.release()
        while engine.has_work:  # noqa: ASYNC110  # a result that nobody waits for has no event
            await asyncio.sleep(0)


async def test_an_engine_that_fails_itself_says_so_and_is_not_healthy() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    engine = InferenceEngine[int, int](lambda items: items)
    engine.start()
    engine.queue.take = lambda max_items: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(EngineStopped):
        await engine.submit(1)
    assert not engine.healthy
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]
    with pytest.raises(ZeroDivisionError):
        await engine.stop()


async def test_leaving_drains() -> None:
    async with InferenceEngine[int, int](lambda items: items, EngineConfig(max_batch_size=4)) as engine:
        futures = [engine.enqueue(i) for i in range(40)]
    assert [future.result() for future in futures] == list(range(40))
    with pytest.raises(EngineStopped):
        await engine.submit(1)


async def test_leaving_does_not_wait_for_a_window() -> None:
    clock = ManualClock()
    config = EngineConfig(batch_wait_ms=60_000)
    async with InferenceEngine[int, int](lambda items: items, config, clock=clock) as engine:
        future = engine.enqueue(1)
    assert future.result() == 1
    assert clock.time() == 0


async def test_stopping_without_draining_refuses_what_waits() -> None:
    model = Held()
    engine = InferenceEngine(model)
    engine.start()
    running = engine.enqueue(0)
    await model.until_entered()
    waiting = engine.enqueue(1)
    stopping = asyncio.create_task(engine.stop(drain=False))
    with pytest.raises(EngineStopped):
        await waiting
    model.let_go.release()
    await stopping
    assert await running == 0


async def test_a_stop_that_runs_out_of_time_leaves_nobody_waiting() -> None:
    model = Held()
    engine = InferenceEngine(model)
    engine.start()
    running = engine.enqueue(0)
    await model.until_entered()
    waiting = engine.enqueue(1)
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    for future in (running, waiting):
        with pytest.raises(EngineStopped):
            await future
    model.let_go.release()  # the late result goes nowhere
    async with engine.scheduler.gate.turn("another"):
        pass


async def test_stopping_an_engine_that_never_started_refuses_what_waits() -> None:
    engine = InferenceEngine[int, int](lambda items: items)
    future = engine.enqueue(1)
    await engine.stop()
    with pytest.raises(EngineStopped):
        await future
    await engine.stop()


async def test_tasks_submitted_before_the_start_are_served() -> None:
    engine = InferenceEngine[int, int](lambda items: items)
    future = engine.enqueue(1)
    async with engine:
        assert await future == 1


async def test_a_model_thread_that_dies_is_replaced() -> None:
    threads: set[threading.Thread] = set()

    def model(items: list[str]) -> list[str]:
        threads.add(threading.current_thread())
        if "deadly" in items:
            raise SystemExit("as a crashing library would")
        return items

    async with InferenceEngine(model) as engine:
        results = await asyncio.gather(*map(engine.submit, ["a", "deadly", "b"]), return_exceptions=True)
        assert results[0] == "a"
        assert isinstance(results[1], ModelThreadDied)
        assert isinstance(results[1].__cause__, SystemExit)
        assert results[2] == "b"
        assert await engine.submit("c") == "c"
    assert len(threads) == 4  # it died in the batch of three, of two, and alone


async def test_the_model_threads_end_with_its_engine() -> None:
    both = threading.Barrier(2)

    def model(items: list[int]) -> list[int]:
        both.wait(60)
        return items

    async with InferenceEngine[int, int](model, concurrency=2, name="ending") as engine:
        await asyncio.gather(engine.submit(1), engine.submit(2))
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("ending-model-")]
    assert len(threads) == 2
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


async def test_nothing_is_kept_of_a_finished_request() -> None:
    class Data:
        pass

    async with InferenceEngine[Data, None](lambda items: [None for _ in items]) as engine:
        data = Data()
        seen = weakref.ref(data)
        await engine.submit(data)
        del data
        await engine.submit(Data())  # the thread and the loop have moved on
        gc.collect()
        assert seen() is None


async def test_two_engines_share_a_device() -> None:
    gate = DeviceGate("priority")
    inside: list[str] = []

    def model(name: str, items: list[int]) -> list[int]:
        inside.append(name)
        assert len(inside) == 1
        time.sleep(0)  # lets the other thread in, if it could
        inside.remove(name)
        return items

    async with (
        InferenceEngine[int, int](lambda items: model("a", items), gate=gate, name="a") as a,
        InferenceEngine[int, int](lambda items: model("b", items), gate=gate, name="b") as b,
    ):
        await asyncio.gather(
            *(a.submit(i) for i in range(100)), *(b.submit(i, priority=Priority.BULK) for i in range(100))
        )
    assert gate.used_ms.keys() == {"a", "b"}


async def test_the_batch_is_formed_when_the_device_is_granted() -> None:
    gate = DeviceGate()
    batches: list[list[int]] = []

    def model(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    async with InferenceEngine(model, gate=gate) as engine:
        async with gate.turn("another model"):
            futures = [engine.enqueue(1)]
            await ManualClock().advance()  # the engine asks for a turn
            futures += [engine.enqueue(2), engine.enqueue(3)]
        await asyncio.gather(*futures)
    assert batches == [[1, 2, 3]]


async def test_a_granted_turn_nobody_needs_any_more_is_given_back() -> None:
    gate = DeviceGate()
    async with InferenceEngine[int, int](lambda items: items, gate=gate) as engine:
        async with gate.turn("another model"):
            future = engine.enqueue(1)
            await ManualClock().advance()  # the engine asks for a turn
            future.cancel()
        assert await engine.submit(2) == 2


# The decorator --------------------------------------------------------------------------------------------


def test_a_decorated_function_takes_one_item_on_any_loop() -> None:
    @batched
    def double(numbers: list[int]) -> list[int]:
        """Twice as much."""
        return [2 * number for number in numbers]

    assert double.__doc__ == "Twice as much."
    for _ in range(2):  # another loop each time

        async def main() -> None:
            async with double:
                assert await asyncio.gather(*map(double, range(5))) == [0, 2, 4, 6, 8]

        asyncio.run(main())


async def test_a_decorator_with_arguments() -> None:
    events: list[BatchEvent] = []

    @batched(config=EngineConfig(max_batch_size=2), name="halves", observe=events.append)
    async def halve(numbers: list[int]) -> list[float]:
        return [number / 2 for number in numbers]

    async with halve:
        assert await asyncio.gather(*(halve(n, priority=Priority.BULK) for n in range(4))) == [0, 0.5, 1, 1.5]
    assert {event.model for event in events} == {"halves"}
    assert max(event.items for event in events) <= 2


async def test_a_decorated_method_has_an_engine_per_instance() -> None:
    class Scaler:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @batched
        def scale(self, numbers: list[int]) -> list[int]:
            return [self.factor * number for number in numbers]

    two, three = Scaler(2), Scaler(3)
    calls = [two.scale(1), three.scale(1), two.scale(5)]
    assert await asyncio.gather(*calls) == [2, 3, 10]
    assert two.scale.engine is not three.scale.engine
    await two.scale.stop()
    await three.scale.stop()
