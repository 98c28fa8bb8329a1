"""When what came from the worker is handed to its readers."""

import asyncio
import time
from collections.abc import Callable

_SHORT_S = 2e-3
"""Rounds up to here are followed by no pause."""
_PAUSE = 2
"""How long a pause is, in times of the round before it."""
_LONGEST_PAUSE_S = 0.1
"""Whatever else the event loop did meanwhile."""


class Rounds:
    """Hands out in rounds, which take at most a third of the event loop's time once they get long.

    A step of hundreds of streams keeps the event loop writing for many milliseconds. Were the next one handed
    out right behind it, who comes anew would wait for one after the other. So a long round is followed by a
    pause twice as long, in which tokens gather; those of one stream then leave in one write, which costs
    hardly more than one of them.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._waiting: list[Callable[[], None]] = []
        self._pause_ends_s = 0.0

    def join(self, hand_over: Callable[[], None]) -> None:
        """Have it called in the next round, once. It must not raise."""
        if not self._waiting:
            pause_s = self._pause_ends_s - self._now_s()
            loop = asyncio.get_running_loop()
            if pause_s > 0:
                loop.call_later(pause_s, self._run)
            else:
                loop.call_soon(self._run)
        self._waiting.append(hand_over)

    def _run(self) -> None:
        began_s = self._now_s()
        waiting, self._waiting = self._waiting, []
        for hand_over in waiting:
            hand_over()
        # uvloop writes at the end of a turn; the next turn knows how long that took.
        asyncio.get_running_loop().call_soon(self._pause, began_s)

    def _pause(self, began_s: float) -> None:
        now_s = self._now_s()
        if (took_s := now_s - began_s) > _SHORT_S:
            self._pause_ends_s = now_s + min(_PAUSE * took_s, _LONGEST_PAUSE_S)
