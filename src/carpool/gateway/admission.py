"""A bounded number of places for requests to models: beyond it, an honest refusal before any work."""

import time
from collections.abc import Callable

from carpool.errors import Overloaded, RateLimited
from carpool.gateway.key_limits import KeyLimits
from carpool.worker.occupancy import Occupancy


class Admission:
    """Counts who is inside, in all and by key."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._places = Occupancy(clock)

    @property
    def taken(self) -> int:
        """Requests inside now."""
        return self._places.taken

    def place(self, limits: KeyLimits | None) -> "Place":
        """A place for the length of a `with` block, for a request whose key has these limits.

        Entering it raises `Overloaded` when all places are taken, `RateLimited` beyond the key's own limits.
        """
        return Place(self, limits)

    def enter(self) -> float:
        """Take one; returns the time. Raises `Overloaded`."""
        if self._places.taken >= self._limit:
            raise Overloaded(
                f"All {self._limit} places of the server are taken (gateway.max_concurrent_requests).",
                retry_after_s=self._places.retry_after_s,
            )
        return self._places.take()

    def leave(self) -> None:
        """Give it back after its use."""
        self._places.free()

    def give_back(self, taken_at: float) -> None:
        """Give it back unused."""
        self._places.give_back(1, taken_at)


class Place:
    """What `Admission.place` gives."""

    def __init__(self, admission: Admission, limits: KeyLimits | None) -> None:
        self._admission = admission
        self._limits = limits

    def __enter__(self) -> None:
        taken_at = self._admission.enter()
        if self._limits is not None:
            try:
                self._limits.enter()
            except RateLimited:
                self._admission.give_back(taken_at)
                raise

    def __exit__(self, *_: object) -> None:
        self._admission.leave()
        if self._limits is not None:
            self._limits.leave()
