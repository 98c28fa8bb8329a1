"""How many places are taken, and how long they are held: what the time to come back is told by."""

import time
from collections import deque
from collections.abc import Callable

_REMEMBERED = 64
"""Ends that the time is measured over."""
_UNKNOWN_RETRY_S = 1.0
"""When to come back where nothing has ended yet."""
_LONGEST_RETRY_S = 60.0


class Occupancy:
    """Counts the places that are taken, and measures the mean time that one is held.

    By Little's law that is the time integral of the places taken, over the ends meanwhile. While they are all
    taken it is their number by the rate at which they become free; time without work adds nothing to it, and
    time with little work little.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.taken = 0
        """Places."""
        self._clock = clock
        self._held_s = 0.0
        """Seconds that places were held, of all places together."""
        self._counted = clock()
        """When that was brought up to date."""
        self._ended_at = 0.0
        """What it was at the latest end."""
        self._ends: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        """The latest ends: what it was at the end before, and how many places became free."""

    def take(self, count: int = 1) -> float:
        """So many more are taken; returns the time."""
        self._count()
        self.taken += count
        return self._counted

    def free(self, count: int = 1) -> None:
        """So many are free again, all of them after one use."""
        self._count()
        self.taken -= count
        self._ends.append((self._ended_at, count))
        self._ended_at = self._held_s

    def give_back(self, count: int, taken_at: float) -> None:
        """So many are free that were not used: they tell nothing of how long one is held."""
        self._count()
        self.taken -= count
        self._held_s -= count * (self._counted - taken_at)

    @property
    def retry_after_s(self) -> float:
        """When those who hold a place now should have ended: from 1 s to 60 s."""
        if not self._ends:
            return _UNKNOWN_RETRY_S
        self._count()
        mean_s = (self._held_s - self._ends[0][0]) / sum(count for _, count in self._ends)
        return min(max(mean_s, 1.0), _LONGEST_RETRY_S)

    def _count(self) -> None:
        now = self._clock()
        self._held_s += self.taken * (now - self._counted)
        self._counted = now
