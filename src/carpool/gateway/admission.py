"""A bounded number of places for requests to models: beyond it, an honest refusal before any work."""

from collections.abc import Iterator
from contextlib import contextmanager

from carpool.errors import Overloaded


class Admission:
    """Counts who is inside."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0
        """Requests inside now."""

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for the length of the block. Raises `Overloaded` when all are taken."""
        if self.taken >= self._places:
            raise Overloaded(
                f"All {self._places} places of the server are taken (gateway.max_concurrent_requests).",
                retry_after_s=1,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
