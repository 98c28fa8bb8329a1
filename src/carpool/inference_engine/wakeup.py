"""Waiting for a change or for a time, whichever comes first."""

from __future__ import annotations

import asyncio

from .clock import Clock


class Wakeup:
    """Wakes everybody who waits; those who come later wait for the next time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.awaited: set[asyncio.Future[None]] = set()
        """One for everybody who waits; empty if nobody does."""

    async def wait(self, until: float | None = None) -> None:
        """Wait for `notify`, at most until this clock time in seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.awaited.add(waiter)
        timer = None if until is None else self._clock.call_at(until, self.notify)
        try:
            await waiter
        finally:
            self.awaited.discard(waiter)
            if timer is not None:
                timer.cancel()

    def notify(self) -> None:
        """Wake them."""
        for waiter in self.awaited:
            if not waiter.done():
                waiter.set_result(None)
