"""What one API key may do at most: so many requests at once, and so many a minute."""

import time
from collections.abc import Callable

from carpool.errors import RateLimited
from carpool.gateway.config import KeyConfig

_UNKNOWN_RETRY_S = 1.0
"""When to come back to a key all of whose requests are running: nobody knows how long they take."""


class KeyLimits:
    """A key's requests inside, and what is left of its minute.

    The minute is a token bucket: a key that was quiet may send all of a minute's requests at once, and gets
    one more every 60 / `requests_per_minute` seconds. What is refused does not count.
    """

    def __init__(self, key: KeyConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.key = key
        self._clock = clock
        self._inside = 0
        self._left = float(key.requests_per_minute or 0)
        self._seen = clock()

    def enter(self) -> None:
        """Count a request in, until `leave`. Raises `RateLimited`, and then it is not counted."""
        key = self.key
        if key.max_concurrent_requests is not None and self._inside >= key.max_concurrent_requests:
            raise RateLimited(
                f"The key `{key.name}` may have {key.max_concurrent_requests} requests at once "
                "(max_concurrent_requests).",
                retry_after_s=_UNKNOWN_RETRY_S,
            )
        if key.requests_per_minute is not None:
            self._take(key.requests_per_minute)
        self._inside += 1

    def leave(self) -> None:
        """The request has ended."""
        self._inside -= 1

    def _take(self, per_minute: int) -> None:
        now = self._clock()
        self._left = min(per_minute, self._left + (now - self._seen) * per_minute / 60)
        self._seen = now
        if self._left < 1:
            raise RateLimited(
                f"The key `{self.key.name}` may send {per_minute} requests a minute (requests_per_minute).",
                retry_after_s=(1 - self._left) * 60 / per_minute,
            )
        self._left -= 1
