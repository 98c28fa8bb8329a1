"""The waiting tasks: how many may wait, and who goes next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from .batch import BatchLimits, form_batch
from .clock import MONOTONIC, Clock
from .config import TIMEOUT, EngineConfig
from .cost_model import CostModel
from .errors import DeadlineExceeded, EngineStopped, InvalidConfig, QueueFull
from .events import Release
from .lane import Lane
from .task import InferenceTask, Priority
from .wakeup import Wakeup

_DEADLINE_MARGIN = 2.0
"""A batch leaves its window this many predicted run times before a deadline: the prediction is a mean."""

_UNKNOWN_RETRY_S = 1.0
"""When to come back to a queue that is full before its model has run."""


class QueueManager:
    """Lanes by priority, fair order between the tenants of a lane, arrival order within a tenant.

    The queue of an engine, and on its own the waiting queue of whoever pops tasks one by one. It belongs to
    one event loop. It owns the place of a task from `put` to `pop`, and the timer that ends the task's
    future at its deadline wherever the task is by then. A task whose future is done leaves by itself.
    """

    def __init__(
        self, config: EngineConfig | None = None, *, clock: Clock = MONOTONIC, concurrency: int = 1
    ) -> None:
        """`concurrency` is how many batches run at a time. Raises `InvalidConfig` if it is below 1."""
        if concurrency < 1:
            raise InvalidConfig(f"concurrency must be at least 1, not {concurrency}")
        self.config = config or EngineConfig()
        self.concurrency = concurrency
        self.cost_model = CostModel()
        """Shared with whoever runs the tasks and reports how long it took."""
        self.memory_ceiling = math.inf
        """Cost per batch that is known to fit into memory."""
        self.closed = False
        self._clock = clock
        self._lanes = [Lane() for _ in Priority]
        self._items = 0
        self._cost = 0.0
        self._arrived = 0
        self._changed = Wakeup(clock)

    def __len__(self) -> int:
        """Tasks that wait."""
        return self._items

    @property
    def cost(self) -> float:
        """Their cost without padding, in the unit of `InferenceTask.cost`."""
        return self._cost

    @property
    def backlog_ms(self) -> float:
        """How long the work that waits is predicted to take; 0 as long as the cost model has seen nothing."""
        return self._predict_ms(self._items, self._cost)

    # Putting -------------------------------------------------------------------------------------------

    async def put(self, task: InferenceTask) -> None:
        """As `put_nowait`; it never waits for room."""
        self.put_nowait(task)

    def put_nowait(self, task: InferenceTask) -> None:
        """Queue a task.

        Raises `QueueFull` if it would wait too long, `EngineStopped` after `close`, and `InvalidConfig` for a
        cost that is not positive and finite. What counts is what goes before the task: bulk work does not
        fill the queue for interactive work, nor one tenant's backlog for another tenant.
        """
        self.put_together([task])

    def put_together(self, tasks: Sequence[InferenceTask]) -> None:
        """Queue tasks of one tenant and priority, one after the other, all or none; raises as `put_nowait`.

        What counts is what goes before the last one; but where nothing goes before the first, they are taken.
        """
        if self.closed:
            raise EngineStopped("the queue is closed")
        for task in tasks:
            if not 0 < task.cost < math.inf:
                raise InvalidConfig(f"cost must be positive and finite, not {task.cost}")
        *earlier, last = tasks
        earlier_cost = sum(task.cost for task in earlier)
        # Usually the whole queue is short enough.
        if not self._acceptable(self._items + len(earlier), self._cost + earlier_cost):
            self._admit(last, len(earlier), earlier_cost)
        for task in tasks:
            self._put(task)

    def _put(self, task: InferenceTask) -> None:
        task.sequence = self._arrived
        self._arrived += 1
        task.arrival = self._clock.time()
        if task.deadline is not None:
            task.timer = self._clock.call_at(task.deadline, self._expire, task)
        self._insert(task)

    def requeue(self, task: InferenceTask) -> None:
        """Return a popped task to its place: by its first arrival, at no charge to its tenant."""
        self._lanes[task.priority].refund(task)
        self._insert(task)

    def discard(self, task: InferenceTask) -> None:
        """Take a task out if it still waits here; its future stays as it is."""
        if task.queued:
            self._lanes[task.priority].remove(task)
            self._left([task])

    def close(self) -> None:
        """Refuse further tasks; those that wait can still be taken."""
        self.closed = True
        self._changed.notify()

    def fail_all(self, error: Exception) -> None:
        """Take out every task and end it with this error."""
        for lane in self._lanes:
            for task in list(lane.ordered()):
                self.discard(task)
                task.fail(error)

    # Taking --------------------------------------------------------------------------------------------

    def peek(self) -> InferenceTask | None:
        """The most urgent task, or None."""
        for lane in self._lanes:
            while lane.items:
                task = next(lane.ordered())
                if self._takeable(task):
                    return task
        return None

    def pop(self) -> InferenceTask | None:
        """Take out the most urgent task, or None."""
        task = self.peek()
        if task is not None:
            self._lanes[task.priority].serve([task])
            self._left([task])
        return task

    def take(self, max_items: int) -> tuple[list[InferenceTask], bool]:
        """Take out a batch around the most urgent task, all from its lane; also whether it met a bound.

        The batch is empty if nobody waits. BULK and IDLE batches are cut to `bulk_slice_ms` of predicted
        run time, but not below what a call costs without its tasks; until there is a prediction, to one task.
        """
        head = self.peek()
        if head is None:
            return [], False
        limits = self._limits(head.priority, max_items)
        lane = self._lanes[head.priority]
        # Looking further ahead would make most tasks barriers before their turn, and the batches small.
        batches_ahead = 1 if lane.uniform or not limits.padded else max(1, limits.max_overtakes // 2)
        candidates = [
            task
            for task in list(islice(lane.ordered(), batches_ahead * limits.max_items))
            if task is head or (task.deadline is None and not task.future.done()) or self._takeable(task)
        ]
        tasks, full = form_batch(candidates, limits)
        lane.serve(tasks)
        self._left(tasks)
        return tasks, full

    async def get_batch(self, max_batch_size: int, timeout: float = TIMEOUT) -> list[InferenceTask]:
        """Wait for a batch: up to `max_batch_size` tasks, or what is there `timeout` seconds after the first.

        With `timeout` 0 it returns as soon as any task waits. Raises `EngineStopped` when the queue is closed
        and empty.
        """
        while await self.wait_ready(max_batch_size, timeout) is not None:
            if tasks := self.take(max_batch_size)[0]:
                return tasks
        raise EngineStopped("the queue is closed and empty")

    # Waiting -------------------------------------------------------------------------------------------

    async def wait_nonempty(self) -> bool:
        """Wait until a task waits; False if the queue is closed and empty instead."""
        while not self._items:
            if self.closed:
                return False
            await self._changed.wait()
        return True

    async def wait_ready(self, max_items: int, window_s: float) -> Release | None:
        """Wait until a batch should leave, and say why; None if the queue is closed and empty.

        `window_s` runs from the arrival of the oldest waiting task, so time spent waiting for a busy model
        counts. It is cut short where a task would miss its deadline otherwise.
        """
        while await self.wait_nonempty():
            if window_s <= 0 or self.closed:
                return Release.IDLE
            if self._items >= max_items or self.cost >= min(self.config.max_batch_cost, self.memory_ceiling):
                return Release.FULL
            leave_at, reason = self._window_end(window_s)
            if self._clock.time() >= leave_at:
                return reason
            await self._changed.wait(leave_at)
        return None

    def _window_end(self, window_s: float) -> tuple[float, Release]:
        tasks = [task for lane in self._lanes for task in lane.ordered()]
        window = min(task.arrival for task in tasks) + window_s
        deadline = min((task.deadline for task in tasks if task.deadline is not None), default=math.inf)
        model = self.cost_model
        run_s = model.predict_ms(self.cost * model.padding) / 1e3 if model.fitted else math.inf
        if deadline < math.inf and deadline - _DEADLINE_MARGIN * run_s < window:
            return deadline - _DEADLINE_MARGIN * run_s, Release.DEADLINE
        return window, Release.WINDOW

    # Bookkeeping ---------------------------------------------------------------------------------------

    def _admit(self, task: InferenceTask, num_earlier: int, earlier_cost: float) -> None:
        """Raise `QueueFull` if a task, queued behind others of its tenant, would wait too long."""
        if not self._ahead_of(task)[0]:  # whatever tasks cost, they are taken where nothing goes before them
            return
        items, cost = self._ahead_of(task, num_earlier, earlier_cost)
        if not self._acceptable(items, cost):
            wait_ms = self._predict_ms(items, cost)
            excess_ms = max(wait_ms - self.config.max_queue_ms, wait_ms / items)  # at least one task's time
            raise QueueFull(excess_ms / 1e3 if self.cost_model.fitted else _UNKNOWN_RETRY_S)

    def _ahead_of(
        self, task: InferenceTask, num_earlier: int = 0, earlier_cost: float = 0.0
    ) -> tuple[int, float]:
        """Items and cost that go before a task in all lanes; see `Lane.ahead_of`."""
        lane = self._lanes[task.priority]
        items, cost = lane.ahead_of(task.tenant, task.cost, num_earlier, earlier_cost)
        for urgent in self._lanes[: task.priority]:
            items += urgent.items
            cost += urgent.cost
        return items, cost

    def _acceptable(self, items: int, cost: float) -> bool:
        if items >= self.config.max_queue_items:
            return False
        return not self.cost_model.trusted or self._predict_ms(items, cost) <= self.config.max_queue_ms

    def _predict_ms(self, items: int, cost: float) -> float:
        max_cost = min(self.config.max_batch_cost, self.memory_ceiling)
        work_ms = self.cost_model.predict_backlog_ms(items, cost, self.config.max_batch_size, max_cost)
        return work_ms / self.concurrency

    def _limits(self, priority: Priority, max_items: int) -> BatchLimits:
        config, model = self.config, self.cost_model
        max_cost = min(config.max_batch_cost, self.memory_ceiling)
        if priority >= Priority.BULK:
            max_items = max_items if model.fitted else 1
            # Where calls are slow whatever their size, smaller ones would hold the device for longer in all.
            max_cost = min(max_cost, max(model.cost_within(config.bulk_slice_ms), model.dispatch_cost))
        return BatchLimits(max_items, max_cost, config.padded, config.max_overtakes, model.dispatch_cost)

    def _insert(self, task: InferenceTask) -> None:
        self._lanes[task.priority].add(task)
        task.queued = True
        self._items += 1
        self._cost += task.cost
        if task.on_done is None:
            task.on_done = lambda _: self._ended(task)
            task.future.add_done_callback(task.on_done)
        if self._changed.awaited:
            self._changed.notify()

    def _left(self, tasks: list[InferenceTask]) -> None:
        for task in tasks:
            task.queued = False
            self._cost -= task.cost
            if task.timer is None and task.on_done is not None:
                task.future.remove_done_callback(task.on_done)
                task.on_done = None
        self._items -= len(tasks)
        if not self._items:
            self._cost = 0.0  # no rounding error survives an empty queue

    def _takeable(self, task: InferenceTask) -> bool:
        """Whether to compute the task; if not, it is out of the queue and has its outcome.

        A deadline that cannot be met any more, by the cost model, is as good as passed. The last waiting
        task is tried all the same: the device is free, and the model would never correct itself otherwise.
        """
        if task.live and task.deadline is not None:
            run_s = self.cost_model.predict_ms(task.cost) / 1e3 if self._items > 1 else 0.0
            if self._clock.time() + run_s >= task.deadline:
                self._expire(task)
        if task.live:
            return True
        self.discard(task)
        return False

    def _expire(self, task: InferenceTask) -> None:
        self.discard(task)
        task.fail(DeadlineExceeded("the deadline passed before the result was there"))

    def _ended(self, task: InferenceTask) -> None:
        self.discard(task)
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None
