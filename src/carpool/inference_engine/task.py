"""One request's item on its way to the model, and how urgent it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from .clock import Timer
from .errors import ItemFailed


class Priority(IntEnum):
    """The lanes of a queue; a lower number goes first. Only BULK and IDLE batches are cut into slices."""

    REALTIME = 0
    """Work another request is blocked on for a moment only, such as a cache look-up's embedding."""
    INTERACTIVE = 1
    """Somebody is waiting for the answer."""
    BULK = 2
    """Throughput matters, one item's latency does not."""
    IDLE = 3
    """Only when nothing else waits, such as audits."""


@dataclass(slots=True, eq=False)
class InferenceTask:
    """An item and the future that gets its one outcome.

    `deadline` is an absolute time of the queue's clock in seconds (by default `time.monotonic()`): by then
    the future is done, with `DeadlineExceeded` if the result is not there. `cost` is the item's own cost
    without padding, such as its length in tokens.
    """

    data: Any
    future: asyncio.Future[Any]
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    tenant: str = "local"
    cost: float = 1.0

    # The rest belongs to the queue that holds the task.
    sequence: int = field(default=-1, init=False)
    """Arrival order in its queue; kept by `requeue`."""
    arrival: float = field(default=0.0, init=False)
    """Clock time of the first put, in seconds."""
    overtaken: int = field(default=0, init=False)
    """Dispatches that left this task waiting and took one behind it."""
    queued: bool = field(default=False, init=False)
    timer: Timer | None = field(default=None, init=False, repr=False)
    """Ends the future at the deadline."""
    on_done: Callable[[asyncio.Future[Any]], None] | None = field(default=None, init=False, repr=False)
    """The future's callback while somebody has to know that it is done."""

    @property
    def live(self) -> bool:
        """Whether somebody still waits for the outcome."""
        return not self.future.done()

    def resolve(self, result: Any) -> None:
        """Hand over the result, or the exception if the result is one; does nothing when nobody waits."""
        if isinstance(result, BaseException):
            self.fail(result)
        elif not self.future.done():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """End with this error; does nothing when nobody waits."""
        if self.future.done():
            return
        if isinstance(error, StopIteration) or not isinstance(error, Exception):
            # A future refuses the first, and asyncio lets some of the second tear down the event loop.
            stand_in = ItemFailed(repr(error))
            stand_in.__cause__ = error
            error = stand_in
        self.future.set_exception(error)
