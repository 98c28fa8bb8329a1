"""Time as a seam: every wait and every measurement of the engine goes through one `Clock`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A callback that has been scheduled."""

    def cancel(self) -> None:
        """Make sure that the callback does not run."""


class Clock(Protocol):
    """Seconds that only go forward, and callbacks at one of them."""

    def time(self) -> float:
        """Now, in seconds."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` on the event loop at `when` (seconds of this clock) or soon after."""


class MonotonicClock:
    """`time.monotonic` and the running event loop's timers."""

    time = staticmethod(time.monotonic)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Arm a timer of the running loop, whose own clock may have another origin (uvloop's does)."""
        delay_s = max(0.0, when - time.monotonic())
        return asyncio.get_running_loop().call_later(delay_s, callback, *args)


MONOTONIC = MonotonicClock()
