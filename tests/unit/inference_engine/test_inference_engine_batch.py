"""Which tasks ride together: bounds, padding, and that nobody is passed over for ever."""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.inference_engine import EngineConfig, InferenceTask, QueueManager
from carpool.inference_engine.batch import BatchLimits, batch_cost, form_batch

lengths = st.integers(1, 512).map(float)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def tasks_of(loop: asyncio.AbstractEventLoop, costs: list[float]) -> list[InferenceTask]:
    return [InferenceTask(i, loop.create_future(), cost=cost) for i, cost in enumerate(costs)]


def chosen(
    loop: asyncio.AbstractEventLoop, costs: list[float], limits: BatchLimits
) -> tuple[list[float], bool]:
    batch, full = form_batch(tasks_of(loop, costs), limits)
    return [task.cost for task in batch], full


def test_all_that_fits_goes(loop: asyncio.AbstractEventLoop) -> None:
    assert chosen(loop, [1, 1, 1], BatchLimits(4)) == ([1, 1, 1], False)
    assert chosen(loop, [1, 2, 3], BatchLimits(4)) == ([1, 2, 3], False)


def test_items_bound(loop: asyncio.AbstractEventLoop) -> None:
    assert chosen(loop, [1] * 9, BatchLimits(4)) == ([1] * 4, True)


def test_the_batch_grows_around_the_most_urgent_task(loop: asyncio.AbstractEventLoop) -> None:
    costs: list[float] = [100, 5, 6, 98, 7, 102, 300]
    assert chosen(loop, costs, BatchLimits(3)) == ([100, 98, 102], True)


def test_cost_counts_padding(loop: asyncio.AbstractEventLoop) -> None:
    assert chosen(loop, [10, 10, 20], BatchLimits(8, max_cost=40)) == ([10, 10], True)
    assert chosen(loop, [10, 10, 20], BatchLimits(8, max_cost=40, padded=False)) == ([10, 10, 20], False)


def test_without_padding_all_go_in_order_as_far_as_their_sum_fits(loop: asyncio.AbstractEventLoop) -> None:
    tasks = tasks_of(loop, [10, 50, 12, 9, 48])
    limits = BatchLimits(8, padded=False, dispatch_cost=0)
    assert form_batch(tasks, replace(limits, max_cost=35)) == (tasks[:1], True)
    assert form_batch(tasks, replace(limits, max_cost=90)) == (tasks[:4], True)
    assert form_batch(tasks, replace(limits, max_cost=200)) == (tasks, False)
    assert form_batch(tasks, replace(limits, max_items=3)) == (tasks[:3], True)
    assert form_batch(tasks, replace(limits, max_items=5)) == (tasks, True)
    assert not any(task.overtaken for task in tasks)


def test_a_shorter_task_may_fit_where_a_nearer_longer_one_does_not(loop: asyncio.AbstractEventLoop) -> None:
    assert chosen(loop, [10, 12, 7], BatchLimits(8, max_cost=20)) == ([10, 7], True)


def test_a_task_above_the_bound_goes_alone(loop: asyncio.AbstractEventLoop) -> None:
    assert chosen(loop, [500, 500], BatchLimits(8, max_cost=40)) == ([500], True)
    assert chosen(loop, [500, 1], BatchLimits(8, max_cost=-5)) == ([500], True)


def test_padding_dearer_than_a_call_of_its_own_is_not_paid(loop: asyncio.AbstractEventLoop) -> None:
    assert chosen(loop, [10, 400], BatchLimits(8, dispatch_cost=50)) == ([10], False)
    assert chosen(loop, [10, 400], BatchLimits(8, dispatch_cost=500)) == ([10, 400], False)


def test_a_task_that_was_passed_over_too_often_goes_whatever_its_length(
    loop: asyncio.AbstractEventLoop,
) -> None:
    tasks = tasks_of(loop, [10, 500, 10, 10])
    tasks[1].overtaken = 16
    batch, _ = form_batch(tasks, BatchLimits(2))
    assert batch == tasks[:2]


def test_an_overdue_task_that_does_not_fit_bars_those_behind_it(loop: asyncio.AbstractEventLoop) -> None:
    tasks = tasks_of(loop, [10, 10, 500, 10])
    tasks[2].overtaken = 16
    batch, _ = form_batch(tasks, BatchLimits(4, max_cost=100))
    assert batch == tasks[:2]


@given(
    st.lists(lengths, min_size=1, max_size=60),
    st.integers(1, 16),
    st.one_of(st.just(math.inf), st.floats(1, 4000)),
    st.booleans(),
    st.one_of(st.just(math.inf), st.floats(0, 600)),
)
def test_bounds_hold_for_every_mix(
    costs: list[float], max_items: int, max_cost: float, padded: bool, dispatch_cost: float
) -> None:
    loop = asyncio.new_event_loop()
    tasks = tasks_of(loop, costs)
    loop.close()
    batch, full = form_batch(tasks, BatchLimits(max_items, max_cost, padded, 16, dispatch_cost))
    assert batch[0] is tasks[0]
    assert len(set(map(id, batch))) == len(batch) <= max_items
    assert len(batch) == 1 or batch_cost(batch, padded) <= max_cost
    assert [task.data for task in batch] == sorted(task.data for task in batch)
    if len(batch) == max_items:
        assert full
    if not full and dispatch_cost == math.inf:
        assert batch == tasks


@given(
    max_overtakes=st.integers(0, 4),
    max_items=st.integers(1, 6),
    max_cost=st.sampled_from([math.inf, 64.0, 600.0]),
    dispatch_cost=st.sampled_from([0.0, 20.0, math.inf]),
    rounds=st.lists(
        st.lists(st.tuples(lengths, st.sampled_from("abc")), max_size=8), min_size=1, max_size=30
    ),
)
def test_nobody_waits_behind_more_dispatches_of_later_arrivals_than_stated(
    max_overtakes: int,
    max_items: int,
    max_cost: float,
    dispatch_cost: float,
    rounds: list[list[tuple[float, str]]],
) -> None:
    """A dispatch counts against a task if it takes one that its own tenant sent later."""

    async def scenario() -> None:
        config = EngineConfig(max_overtakes=max_overtakes, max_batch_cost=max_cost, max_queue_ms=math.inf)
        queue = QueueManager(config)
        if dispatch_cost < math.inf:  # teach the cost model this overhead
            for cost in (100.0, 100.0, 200.0, 300.0):
                queue.cost_model.observe(cost, cost, dispatch_cost + cost)
        loop = asyncio.get_running_loop()
        waiting: dict[int, InferenceTask] = {}
        passed: dict[int, int] = {}
        arrivals = iter([*rounds, *[[]] * (8 * len(rounds))])
        while waiting or (arriving := next(arrivals, None)) is not None:
            if waiting:
                arriving = next(arrivals, [])
            for cost, tenant in arriving or []:
                task = InferenceTask(None, loop.create_future(), cost=cost, tenant=tenant)
                queue.put_nowait(task)
                waiting[task.sequence] = task
                passed[task.sequence] = 0
            batch, _ = queue.take(max_items)
            assert bool(batch) == bool(waiting)
            for task in batch:
                del waiting[task.sequence]
            for sequence, task in waiting.items():
                if any(other.tenant == task.tenant and other.sequence > sequence for other in batch):
                    passed[sequence] += 1
            assert max(passed.values(), default=0) <= max_overtakes

    asyncio.run(scenario())


@given(st.lists(lengths, min_size=64, max_size=200))
def test_padding_stays_low(costs: list[float]) -> None:
    """With a fitted cost model the padding of a mixed backlog costs less than calling without batches."""

    async def scenario() -> None:
        queue = QueueManager(EngineConfig(max_queue_ms=math.inf))
        overhead = 20.0
        for cost in (100.0, 100.0, 200.0, 300.0):
            queue.cost_model.observe(cost, cost, overhead + cost)
        loop = asyncio.get_running_loop()
        for cost in costs:
            queue.put_nowait(InferenceTask(None, loop.create_future(), cost=cost))
        total = 0.0
        while len(queue):
            batch, _ = queue.take(32)
            total += overhead + batch_cost(batch, padded=True)
        assert total <= 1.25 * sum(overhead + cost for cost in costs)

    asyncio.run(scenario())
