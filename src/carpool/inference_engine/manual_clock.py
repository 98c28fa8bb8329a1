"""Time that a test or a simulation moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
from collections.abc import Awaitable, Callable, Collection
from typing import Any, cast

from .model_thread import ModelThread, Outcome, ProcessFn, checked

_SETTLE_ROUNDS = 16
"""Event-loop rounds between two moves: more than the longest chain of callbacks from timer to model call."""


class _ManualTimer:
    __slots__ = ("args", "callback", "cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A `Clock` that stands still until `advance` moves it; with `sleep` as the only way to take time."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Now, in seconds."""
        return self._now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> _ManualTimer:
        """Call `callback(*args)` when the clock is moved to `when` or past it."""
        timer = _ManualTimer(callback, args)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has moved this far."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._now + seconds, woken.set_result, None)
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float = 0.0) -> None:
        """Move on, stopping at every timer in between and letting everything run that it sets off."""
        end = self._now + seconds
        await self._settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._now = max(self._now, when)
                timer.callback(*timer.args)
                await self._settle()
        self._now = end

    async def _settle(self) -> None:
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)


class SimulatedThread(ModelThread):
    """Awaits `async` functions on the event loop, since no thread can sleep on a `ManualClock`."""

    async def call(self, function: ProcessFn, items: list[Any]) -> Outcome:
        """See `ModelThread.call`; functions that are not `async` still run in the thread."""
        if not _is_async(function):
            return await super().call(function, items)
        try:
            return checked(await cast("Awaitable[Collection[Any]]", function(items)), len(items))
        except Exception as error:  # the model's own error
            return Outcome([], error)


def _is_async(function: ProcessFn) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
