"""Order, admission, deadlines and waiting of the queue."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.inference_engine import (
    DeadlineExceeded,
    EngineConfig,
    EngineStopped,
    InferenceTask,
    InvalidConfig,
    ManualClock,
    Priority,
    QueueFull,
    QueueManager,
    Release,
)


def new_task(
    data: object = None,
    *,
    priority: Priority = Priority.INTERACTIVE,
    deadline: float | None = None,
    tenant: str = "local",
    cost: float = 1.0,
) -> InferenceTask:
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    return InferenceTask(data, future, priority, deadline, tenant, cost)


def put(queue: QueueManager, *tasks: InferenceTask) -> None:
    for task in tasks:
        queue.put_nowait(task)


def drained(queue: QueueManager) -> list[object]:
    order = []
    while (task := queue.pop()) is not None:
        order.append(task.data)
    return order


# Order ----------------------------------------------------------------------------------------------------


async def test_arrival_order_within_a_tenant() -> None:
    queue = QueueManager()
    put(queue, *(new_task(i) for i in range(5)))
    assert drained(queue) == [0, 1, 2, 3, 4]


async def test_lanes_go_by_priority() -> None:
    queue = QueueManager()
    for priority in (Priority.IDLE, Priority.BULK, Priority.INTERACTIVE, Priority.REALTIME):
        put(queue, new_task(priority, priority=priority))
    assert drained(queue) == sorted(Priority)


async def test_a_batch_holds_one_lane() -> None:
    queue = QueueManager()
    put(queue, new_task("bulk", priority=Priority.BULK), new_task("now"))
    batch, full = queue.take(8)
    assert [task.data for task in batch] == ["now"]
    assert not full


async def test_peek_leaves_the_task_where_it_is() -> None:
    queue = QueueManager()
    assert queue.peek() is None
    assert queue.pop() is None
    task = new_task()
    put(queue, task)
    assert queue.peek() is task
    assert len(queue) == 1
    assert queue.pop() is task
    assert len(queue) == 0


async def test_tenants_at_one_to_hundred_get_equal_service() -> None:
    queue = QueueManager()
    put(queue, *(new_task("many", tenant="many") for _ in range(1000)))
    put(queue, *(new_task("few", tenant="few") for _ in range(10)))
    served = drained(queue)
    assert served[:20].count("few") == 10


async def test_shares_are_of_cost_not_of_tasks() -> None:
    queue = QueueManager()
    put(queue, *(new_task("long", tenant="a", cost=10) for _ in range(100)))
    put(queue, *(new_task("short", tenant="b", cost=1) for _ in range(1000)))
    served = [task for _ in range(110) if (task := queue.pop())]
    assert sum(task.cost for task in served if task.tenant == "a") == pytest.approx(100, abs=10)


async def test_batches_share_between_backlogged_tenants() -> None:
    queue = QueueManager()
    put(queue, *(new_task("many", tenant="many") for _ in range(1000)))
    put(queue, *(new_task("few", tenant="few") for _ in range(64)))
    served = [task.data for _ in range(4) for task in queue.take(32)[0]]
    assert served.count("few") == pytest.approx(64, abs=2)


async def test_idling_earns_no_credit() -> None:
    queue = QueueManager()
    put(queue, *(new_task("early", tenant="early") for _ in range(500)))
    for _ in range(400):
        queue.pop()
    put(queue, *(new_task("late", tenant="late") for _ in range(500)))
    served = [task.data for _ in range(40) if (task := queue.pop())]
    assert served.count("late") == pytest.approx(20, abs=1)


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(1, 40), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_backlogged_tenants_never_drift_apart(counts: dict[str, int], batch: int) -> None:
    """Goyal's bound: while two tenants both wait, their service differs by at most one task of each.

    Batches widen it to a batch.
    """

    async def scenario() -> None:
        queue = QueueManager()
        for tenant, count in counts.items():
            put(queue, *(new_task(tenant=tenant) for _ in range(count)))
        left = dict(counts)
        while len(queue):
            for task in queue.take(batch)[0]:
                left[task.tenant] -= 1
            served = [counts[tenant] - count for tenant, count in left.items() if count]
            assert not served or max(served) - min(served) <= 1 + batch

    asyncio.run(scenario())


# Requeue, discard, cancel ---------------------------------------------------------------------------------


async def test_a_requeued_task_keeps_its_place() -> None:
    queue = QueueManager()
    put(queue, *(new_task(i) for i in range(6)))
    popped = [queue.pop() for _ in range(4)]
    for index in (2, 0, 3, 1):
        task = popped[index]
        assert task is not None
        queue.requeue(task)
    assert drained(queue) == [0, 1, 2, 3, 4, 5]


async def test_a_requeue_is_no_second_charge() -> None:
    queue = QueueManager()
    for tenant in "ab":
        put(queue, *(new_task(tenant, tenant=tenant) for _ in range(50)))
    for _ in range(10):
        task = queue.pop()
        assert task is not None
        queue.requeue(task)
    served = [task.data for _ in range(40) if (task := queue.pop())]
    assert served.count("a") == pytest.approx(20, abs=1)


async def test_cancelled_tasks_leave_by_themselves() -> None:
    queue = QueueManager()
    tasks = [new_task(i) for i in range(4)]
    put(queue, *tasks)
    tasks[0].future.cancel()
    tasks[2].future.cancel()
    assert queue.peek() is tasks[1]
    await asyncio.sleep(0)
    assert len(queue) == 2
    assert queue.cost == 2
    assert drained(queue) == [1, 3]


async def test_a_requeued_task_can_still_be_cancelled() -> None:
    queue = QueueManager()
    task = new_task()
    put(queue, task)
    assert queue.pop() is task
    queue.requeue(task)
    task.future.cancel()
    await asyncio.sleep(0)
    assert len(queue) == 0


async def test_discard_takes_a_task_out_once() -> None:
    queue = QueueManager()
    first, second = new_task(), new_task()
    put(queue, first, second)
    queue.discard(first)
    queue.discard(first)
    assert len(queue) == 1
    assert first.live
    assert queue.pop() is second


@given(st.data())
def test_the_counts_agree_with_a_plain_list(data: st.DataObject) -> None:
    async def scenario() -> None:
        queue = QueueManager()
        waiting: list[InferenceTask] = []
        out: list[InferenceTask] = []
        for step in data.draw(st.lists(st.sampled_from("ptrdc"), max_size=60)):
            if step == "p":
                priority = data.draw(st.sampled_from(Priority))
                task = new_task(
                    priority=priority,
                    tenant=data.draw(st.sampled_from("ab")),
                    cost=data.draw(st.integers(1, 9)),
                )
                put(queue, task)
                waiting.append(task)
            elif step == "t":
                batch, _ = queue.take(3)
                assert bool(batch) == bool(waiting)
                for task in batch:
                    waiting.remove(task)
                    assert all(task.priority <= other.priority for other in waiting)
                out += batch
            elif step == "r" and out:
                task = out.pop(data.draw(st.integers(0, len(out) - 1)))
                queue.requeue(task)
                waiting.append(task)
            elif step in "dc" and waiting:
                task = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
                if step == "d":
                    queue.discard(task)
                else:
                    task.future.cancel()
                    await asyncio.sleep(0)
            assert len(queue) == len(waiting)
            assert queue.cost == pytest.approx(sum(task.cost for task in waiting))

    asyncio.run(scenario())


# Admission ------------------------------------------------------------------------------------------------


def taught(config: EngineConfig, *, ms_per_cost: float = 10.0) -> QueueManager:
    queue = QueueManager(config)
    for cost in 3 * (1.0, 2.0, 4.0):
        queue.cost_model.observe(cost, cost, ms_per_cost * cost)
    return queue


async def test_the_queue_is_bounded_in_predicted_milliseconds() -> None:
    queue = taught(EngineConfig(max_queue_ms=100.0))
    put(queue, *(new_task() for _ in range(11)))
    assert queue.backlog_ms == pytest.approx(110.0)
    with pytest.raises(QueueFull) as refused:
        queue.put_nowait(new_task())
    assert refused.value.retry_after_s > 0
    assert len(queue) == 11


async def test_retry_after_is_when_there_is_room_again() -> None:
    queue = taught(EngineConfig(max_batch_size=1, max_queue_ms=100.0))
    with pytest.raises(QueueFull) as refused:
        put(queue, *(new_task() for _ in range(20)))
    for _ in range(round(refused.value.retry_after_s * 1e3 / 10.0)):  # the model serves one per 10 ms
        queue.pop()
    queue.put_nowait(new_task())


async def test_one_late_batch_refuses_nobody() -> None:
    queue = QueueManager(EngineConfig(max_queue_ms=30_000.0))
    for run_ms in (10.0, 10.0, 5_000.0, 10.0):  # the machine stood still for a moment
        queue.cost_model.observe(1.0, 1.0, run_ms)
    put(queue, *(new_task() for _ in range(2_000)))


async def test_before_anything_is_known_items_bound_the_queue() -> None:
    queue = QueueManager(EngineConfig(max_queue_items=3))
    put(queue, *(new_task() for _ in range(3)))
    with pytest.raises(QueueFull):
        queue.put_nowait(new_task())


async def test_an_empty_queue_takes_any_task() -> None:
    queue = taught(EngineConfig(max_queue_ms=100.0))
    queue.put_nowait(new_task(cost=1e6))


async def test_tasks_of_one_caller_are_taken_together_or_not_at_all() -> None:
    queue = QueueManager(EngineConfig(max_queue_items=5))
    queue.put_together([new_task() for _ in range(3)])
    with pytest.raises(QueueFull):
        queue.put_together([new_task() for _ in range(3)])
    assert len(queue) == 3
    queue.put_together([new_task() for _ in range(2)])
    assert len(queue) == 5


async def test_an_empty_queue_takes_any_tasks_of_one_caller() -> None:
    for queue in (QueueManager(EngineConfig(max_queue_items=3)), taught(EngineConfig(max_queue_ms=100.0))):
        queue.put_together([new_task(cost=1e3) for _ in range(20)])
        assert len(queue) == 20
        with pytest.raises(QueueFull):
            queue.put_nowait(new_task())


async def test_tasks_together_wait_for_other_tenants_as_one_by_one() -> None:
    def filled() -> QueueManager:
        queue = QueueManager(EngineConfig(max_queue_items=100))
        for tenant in range(10):
            put(queue, *(new_task(tenant=f"{tenant}") for _ in range(9)))
        return queue

    def new() -> list[InferenceTask]:
        return [new_task(tenant="new") for _ in range(16)]

    one_by_one, together = filled(), filled()
    with pytest.raises(QueueFull):
        put(one_by_one, *new())
    with pytest.raises(QueueFull):
        together.put_together(new())
    assert len(together) == 90
    together.put_together(new()[:9])


async def test_a_senseless_cost_among_several_queues_none() -> None:
    queue = QueueManager()
    with pytest.raises(InvalidConfig, match="cost"):
        queue.put_together([new_task(), new_task(cost=0.0)])
    assert len(queue) == 0


async def test_bulk_work_does_not_fill_the_queue_for_interactive_work() -> None:
    queue = taught(EngineConfig(max_queue_ms=100.0))
    put(queue, *(new_task(priority=Priority.BULK) for _ in range(11)))
    with pytest.raises(QueueFull):
        queue.put_nowait(new_task(priority=Priority.BULK))
    put(queue, *(new_task() for _ in range(11)))
    with pytest.raises(QueueFull):
        queue.put_nowait(new_task())


async def test_a_tenant_does_not_fill_the_queue_for_another() -> None:
    queue = taught(EngineConfig(max_queue_ms=100.0))
    put(queue, *(new_task(tenant="greedy") for _ in range(11)))
    with pytest.raises(QueueFull):
        queue.put_nowait(new_task(tenant="greedy"))
    put(queue, *(new_task(tenant="modest") for _ in range(5)))
    with pytest.raises(QueueFull):  # its fair share of the 100 ms is used up, too
        put(queue, *(new_task(tenant="modest") for _ in range(5)))


@pytest.mark.parametrize("cost", [0.0, -1.0, float("inf"), float("nan")])
async def test_a_senseless_cost_is_refused(cost: float) -> None:
    with pytest.raises(InvalidConfig, match="cost"):
        QueueManager().put_nowait(new_task(cost=cost))


# Deadlines ------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_the_wait_when_it_passes() -> None:
    clock = ManualClock()
    queue = QueueManager(clock=clock)
    task = new_task(deadline=1.0)
    put(queue, task)
    await clock.advance(0.999)
    assert task.live
    await clock.advance(0.001)
    with pytest.raises(DeadlineExceeded):
        await task.future
    assert len(queue) == 0


async def test_a_deadline_holds_after_the_task_was_popped() -> None:
    clock = ManualClock()
    queue = QueueManager(clock=clock)
    task = new_task(deadline=1.0)
    put(queue, task)
    assert queue.pop() is task
    await clock.advance(1.0)
    with pytest.raises(DeadlineExceeded):
        await task.future


async def test_the_timer_goes_with_the_outcome() -> None:
    clock = ManualClock()
    queue = QueueManager(clock=clock)
    task = new_task(deadline=1.0)
    put(queue, task)
    assert queue.pop() is task
    task.resolve("result")
    await clock.advance(2.0)
    assert await task.future == "result"
    assert task.timer is None


async def test_a_deadline_that_cannot_be_met_is_dropped_early() -> None:
    clock = ManualClock()
    queue = QueueManager(clock=clock)
    for cost in (1.0, 1.0, 2.0):
        queue.cost_model.observe(cost, cost, 100.0 * cost)
    late, other = new_task("late", deadline=0.05), new_task("other")
    put(queue, late, other)
    assert queue.pop() is other
    assert isinstance(late.future.exception(), DeadlineExceeded)


async def test_the_last_task_is_tried_against_the_prediction() -> None:
    queue = QueueManager(clock=ManualClock())
    for cost in (1.0, 1.0, 2.0):
        queue.cost_model.observe(cost, cost, 100.0 * cost)
    task = new_task(deadline=0.05)
    put(queue, task)
    assert queue.pop() is task


# Waiting --------------------------------------------------------------------------------------------------


async def test_wait_nonempty() -> None:
    queue = QueueManager()
    waiting = asyncio.create_task(queue.wait_nonempty())
    await asyncio.sleep(0)
    assert not waiting.done()
    put(queue, new_task())
    assert await waiting
    assert await queue.wait_nonempty()


async def test_a_closed_queue_gives_what_it_holds_and_then_ends() -> None:
    queue = QueueManager()
    put(queue, new_task("last"))
    queue.close()
    with pytest.raises(EngineStopped):
        queue.put_nowait(new_task())
    assert [task.data for task in await queue.get_batch(8)] == ["last"]
    assert not await queue.wait_nonempty()
    with pytest.raises(EngineStopped):
        await queue.get_batch(8)


async def test_close_wakes_those_who_wait() -> None:
    queue = QueueManager()
    waiting = asyncio.create_task(queue.wait_nonempty())
    await asyncio.sleep(0)
    queue.close()
    assert not await waiting


@pytest.mark.parametrize(("items", "window_s"), [(8, 0.050), (32, 0.010)])
async def test_the_window_closes_at_whichever_bound_comes_first(items: int, window_s: float) -> None:
    clock = ManualClock()
    queue = QueueManager(clock=clock)
    for count in (items, items - 1):
        released = asyncio.create_task(queue.wait_ready(items, window_s))
        for index in range(count):
            await clock.advance(0.0001)
            assert not released.done()
            put(queue, new_task(index))
        await clock.advance(0.0)
        if count == items:
            assert await released is Release.FULL
        else:
            await clock.advance(window_s - 0.0001 * (count - 1) - 1e-6)
            assert not released.done()
            await clock.advance(2e-6)
            assert await released is Release.WINDOW
        assert len(queue.take(items)[0]) == count


async def test_the_window_runs_from_the_oldest_arrival() -> None:
    clock = ManualClock()
    queue = QueueManager(clock=clock)
    put(queue, new_task())
    await clock.advance(0.060)  # the model was busy meanwhile
    assert await queue.wait_ready(8, 0.050) is Release.WINDOW


async def test_the_window_is_cut_short_for_a_deadline() -> None:
    clock = ManualClock()
    queue = QueueManager(clock=clock)
    for cost in (1.0, 1.0, 2.0):
        queue.cost_model.observe(cost, cost, 5.0 * cost)
    put(queue, new_task(deadline=0.030))
    released = asyncio.create_task(queue.wait_ready(8, 0.050))
    await clock.advance(0.019)
    assert not released.done()
    await clock.advance(0.001)
    assert await released is Release.DEADLINE
    assert len(queue.take(8)[0]) == 1


async def test_a_full_cost_releases_the_window() -> None:
    queue = QueueManager(EngineConfig(max_batch_cost=10.0), clock=ManualClock())
    put(queue, new_task(cost=10.0))
    assert await queue.wait_ready(8, 0.050) is Release.FULL


async def test_eager_goes_at_once() -> None:
    queue = QueueManager(clock=ManualClock())
    put(queue, new_task())
    assert await queue.wait_ready(8, 0.0) is Release.IDLE


# Slices ---------------------------------------------------------------------------------------------------


async def test_bulk_batches_are_cut_to_the_slice() -> None:
    queue = taught(EngineConfig(bulk_slice_ms=50.0))
    put(queue, *(new_task(priority=Priority.BULK) for _ in range(32)))
    assert len(queue.take(32)[0]) == 5
    put(queue, *(new_task() for _ in range(32)))
    assert len(queue.take(32)[0]) == 32


async def test_slices_are_not_mostly_overhead() -> None:
    """A call of 100 ms and 10 ms a task keeps within 50 ms at no size; with 10 tasks it is half tasks."""
    queue = QueueManager(EngineConfig(bulk_slice_ms=50.0))
    for items in (1, 1, 8, 16, 32):
        queue.cost_model.observe(items, items, 100.0 + 10.0 * items)
    put(queue, *(new_task(priority=Priority.BULK) for _ in range(32)))
    assert len(queue.take(32)[0]) == pytest.approx(10, abs=1)


async def test_an_unknown_model_gets_bulk_work_one_by_one() -> None:
    queue = QueueManager()
    put(queue, *(new_task(priority=Priority.BULK) for _ in range(4)))
    assert len(queue.take(32)[0]) == 1


# Config ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": 0},
        {"max_queue_items": 0},
        {"max_batch_cost": 0.0},
        {"max_queue_ms": float("nan")},
        {"bulk_slice_ms": -1.0},
        {"weight": 0.0},
        {"weight": float("inf")},
        {"batch_wait_ms": -1.0},
        {"batch_wait_ms": float("inf")},
        {"max_overtakes": -1},
    ],
)
def test_a_setting_out_of_range_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        EngineConfig(**wrong)  # type: ignore[arg-type]
