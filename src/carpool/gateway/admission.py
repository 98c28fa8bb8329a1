"""A bounded number of places for requests to models: beyond it, an honest refusal before any work."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from carpool.errors import Overloaded
from carpool.gateway.config import KeyConfig
from carpool.gateway.key_limits import KeyLimits


class Admission:
    """Counts who is inside, in all and by key."""

    def __init__(self, places: int, keys: Sequence[KeyConfig] = ()) -> None:
        self._places = places
        self._keys = {key.name: KeyLimits(key) for key in keys}
        self.taken = 0
        """Requests inside now."""

    @contextmanager
    def place(self, key: str) -> Iterator[None]:
        """A place for the length of the block, for a request with the key of this name.

        Raises `Overloaded` when all places are taken, `RateLimited` beyond the key's own limits.
        """
        if self.taken >= self._places:
            raise Overloaded(
                f"All {self._places} places of the server are taken (gateway.max_concurrent_requests).",
                retry_after_s=1,
            )
        limits = self._keys.get(key)
        if limits is not None:
            limits.enter()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            if limits is not None:
                limits.leave()
