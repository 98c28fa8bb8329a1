"""When a batch leaves, what it costs, and who gets which outcome."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from .batch import batch_cost
from .clock import MONOTONIC, Clock
from .config import BATCH_SIZE, TIMEOUT
from .device_gate import DeviceGate, Turn
from .errors import WrongResultCount
from .events import BatchEvent, Observer, Release
from .manual_clock import ManualClock, SimulatedThread
from .model_thread import ModelThread, Outcome, ProcessFn
from .out_of_memory import is_out_of_memory
from .queue_manager import QueueManager
from .task import InferenceTask, Priority


class BatchScheduler:
    """Takes batches from the queue, runs them on the model and routes the results.

    `concurrency` batches are with the model at a time, each in a thread of its own (`ModelThread`): as many
    `step`s may run at once. A batch is formed only once the device is granted, from what waits by then.

    A call that raises is repeated in halves until the items that make it fail stand alone; only they get
    the error. Running out of memory does the same and lowers the queue's `memory_ceiling` to half of what
    was tried. A wrong number of results is a defect of the function, so the whole batch gets that error.
    """

    def __init__(
        self,
        queue_manager: QueueManager,
        process_fn: ProcessFn,
        batch_size: int = BATCH_SIZE,
        timeout: float = TIMEOUT,
        *,
        gate: DeviceGate | None = None,
        name: str = "engine",
        clock: Clock = MONOTONIC,
        observe: Observer | None = None,
    ) -> None:
        """`batch_size` in items; `timeout` is the window in seconds, 0 for the eager rule.

        The concurrency is the queue's, which predicts waiting times by it.
        """
        self.queue = queue_manager
        self.concurrency = queue_manager.concurrency
        self.batch_size = batch_size
        self.timeout = timeout
        self.gate = gate or DeviceGate(clock=clock)
        self.name = name
        self._process_fn = process_fn
        thread = SimulatedThread if isinstance(clock, ManualClock) else ModelThread
        self._threads = [thread(f"{name}-model-{number}") for number in range(self.concurrency)]
        self._idle = list(self._threads)
        self._clock = clock
        self._observe = observe
        self._running: list[_Batch] = []
        self._halves: list[_Batch] = []

    @property
    def has_work(self) -> bool:
        """Whether tasks wait or are with the model, also cancelled ones that it still computes."""
        return bool(self._running or self._halves or len(self.queue))

    async def step(self) -> bool:
        """Run one batch; False when the queue is closed and everything in it is done."""
        release: Release | None = Release.IDLE
        if not self._halves:
            release = await self.queue.wait_ready(self.batch_size, self.timeout)
        if release is None:
            return False
        async with self._turn():
            batch = self._next_batch(release)
            if not batch.tasks:
                return True
            thread = self._idle.pop()
            self._running.append(batch)
            started = self._clock.time()
            outcome = await thread.call(self._process_fn, [task.data for task in batch.tasks])
            run_ms = (self._clock.time() - started) * 1e3
            self._running.remove(batch)
            self._idle.append(thread)
        self._route(batch, outcome)
        self._record(batch, started, run_ms, failed=outcome.error is not None)
        return True

    def abandon(self, error: Exception) -> None:
        """End every task that is still here with this error, and let the model's thread end."""
        self.queue.close()
        for task in [task for batch in self._running + self._halves for task in batch.tasks]:
            task.fail(error)
        self._running, self._halves = [], []
        self.queue.fail_all(error)
        for thread in self._threads:
            thread.stop()

    def _turn(self) -> Turn:
        priority, deadline = self._urgency()
        return self.gate.turn(
            self.name,
            priority=priority,
            deadline=deadline,
            weight=self.queue.config.weight,
            urgency=self._urgency,
            group=self,
        )

    def _urgency(self) -> tuple[Priority, float | None]:
        waiting = [half.tasks[0] for half in self._halves[-1:]]
        if (head := self.queue.peek()) is not None:
            waiting.append(head)
        if not waiting:
            return Priority.IDLE, None  # all were cancelled; the turn will be given back unused
        first = min(waiting, key=lambda task: task.priority)
        return first.priority, first.deadline

    def _next_batch(self, release: Release) -> _Batch:
        """A half of a failed batch, unless something more urgent has come since."""
        while self._halves:
            head = self.queue.peek()
            if head is not None and head.priority < self._halves[-1].tasks[0].priority:
                break
            half = self._halves.pop()
            half.tasks = [task for task in half.tasks if task.live]
            if half.tasks:
                return half
        share = self._share()
        tasks, full = self.queue.take(share)
        full = full and not len(tasks) == share < self.batch_size
        return _Batch(tasks, Release.FULL if full else release, self.queue.memory_ceiling)

    def _share(self) -> int:
        """Items that the next batch may have: what waits is left to the other threads, too, if they are idle.

        A thread that came to have more than its share of all items here would keep it: those who ask again
        when they are answered come back together.
        """
        running = sum(len(batch.tasks) for batch in self._running)
        share = -(-(len(self.queue) + running) // self.concurrency)
        return min(share, self.batch_size) if share < len(self.queue) else self.batch_size

    def _record(self, batch: _Batch, started: float, run_ms: float, *, failed: bool) -> None:
        """Teach the cost model, and tell the observer."""
        cost = batch_cost(batch.tasks, self.queue.config.padded)
        plain = sum(task.cost for task in batch.tasks)
        if not failed:
            is_cut = batch.tasks[0].priority >= Priority.BULK
            bound_ms = self.queue.config.bulk_slice_ms if is_cut else math.inf
            self.queue.cost_model.observe(cost, plain, run_ms, bound_ms=bound_ms)
        if self._observe is None:
            return
        event = BatchEvent(
            model=self.name,
            items=len(batch.tasks),
            cost=cost,
            padding_share=1 - plain / cost,
            wait_ms=(started - min(task.arrival for task in batch.tasks)) * 1e3,
            run_ms=run_ms,
            release=batch.release,
            policy=self.gate.policy,
            failed=failed,
        )
        try:
            self._observe(event)
        except Exception as error:  # an observer must not stop the engine
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the observer of {self.name} raised", "exception": error}
            )

    def _route(self, batch: _Batch, outcome: Outcome) -> None:
        tasks, error = batch.tasks, outcome.error
        if error is None:
            for task, result in zip(tasks, outcome.results, strict=True):
                task.resolve(result)
            return
        if is_out_of_memory(error):
            # A single item that does not fit says nothing about the size of batches.
            tried = batch_cost(tasks, self.queue.config.padded)
            lower = min(self.queue.memory_ceiling, tried / 2)
            self.queue.memory_ceiling = lower if len(tasks) > 1 else batch.ceiling
        if len(tasks) == 1 or isinstance(error, WrongResultCount):
            for task in tasks:
                task.fail(error)
            return
        middle = (len(tasks) + 1) // 2
        for half in (tasks[middle:], tasks[:middle]):
            self._halves.append(_Batch(half, batch.release, batch.ceiling))


@dataclass(slots=True, eq=False)
class _Batch:
    tasks: list[InferenceTask]
    release: Release
    ceiling: float
    """The queue's memory ceiling when the tasks were first taken."""
