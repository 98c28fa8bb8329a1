"""Time that moves when a test says so."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class FakeTimer:
    """A callback and when it is due."""

    when: float
    callback: Callable[[], object] | None

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Starts at 1,000 s."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        timer = FakeTimer(when, lambda: callback(*args))
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.when <= self.now]
        self.timers = [timer for timer in self.timers if timer.when > self.now]
        for timer in sorted(due, key=lambda timer: timer.when):
            if timer.callback is not None:
                timer.callback()
