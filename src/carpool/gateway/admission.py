"""A bounded number of places for requests to models: beyond it, an honest refusal before any work."""

from carpool.errors import Overloaded, RateLimited
from carpool.gateway.key_limits import KeyLimits


class Admission:
    """Counts who is inside, in all and by key."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0
        """Requests inside now."""

    def place(self, limits: KeyLimits | None) -> "Place":
        """A place for the length of a `with` block, for a request whose key has these limits.

        Entering it raises `Overloaded` when all places are taken, `RateLimited` beyond the key's own limits.
        """
        return Place(self, limits)

    def enter(self) -> None:
        """Take one. Raises `Overloaded`."""
        if self.taken >= self._places:
            raise Overloaded(
                f"All {self._places} places of the server are taken (gateway.max_concurrent_requests).",
                retry_after_s=1,
            )
        self.taken += 1

    def leave(self) -> None:
        """Give it back."""
        self.taken -= 1


class Place:
    """What `Admission.place` gives."""

    def __init__(self, admission: Admission, limits: KeyLimits | None) -> None:
        self._admission = admission
        self._limits = limits

    def __enter__(self) -> None:
        self._admission.enter()
        if self._limits is not None:
            try:
                self._limits.enter()
            except RateLimited:
                self._admission.leave()
                raise

    def __exit__(self, *_: object) -> None:
        self._admission.leave()
        if self._limits is not None:
            self._limits.leave()
