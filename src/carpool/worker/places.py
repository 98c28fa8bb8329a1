"""The places at each model: how many requests it may have, running or waiting, and when to come back."""

import time
from collections.abc import Callable, Mapping
from functools import partial

from carpool.errors import Overloaded
from carpool.worker.occupancy import Occupancy


class Reservation:
    """Places at one model, taken together before anything is done for a request.

    Each call of the request uses some of them and frees them when it has ended; `close` frees the others.
    """

    def __init__(self, places: Occupancy, count: int) -> None:
        self._taken_at = places.take(count)
        self._places = places
        self._unused = count

    def use(self, count: int = 1) -> Callable[[], None]:
        """Use so many for a call; returns what is to be called at its end, once."""
        self._unused -= count
        return partial(self._places.free, count)

    def close(self) -> None:
        """Free those that were not used; the second time nothing happens."""
        unused, self._unused = self._unused, 0
        if unused:
            self._places.give_back(unused, self._taken_at)


class Places:
    """Counts requests by model, each choice of a generation as one.

    Places are taken before anything is sent to the worker, and given back when the call has ended, however
    it ended. Taking is one step of the event loop, so there are never more than the limit at a model.
    """

    def __init__(
        self,
        limit: int,
        own_limits: Mapping[str, int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own_limits`: of models that have another one than `limit`; None: they have not."""
        self._limit = limit
        self._own_limits = dict(own_limits or {})
        self._clock = clock
        self._models: dict[str, Occupancy] = {}

    def taken(self, model: str) -> int:
        """Places that are taken at a model."""
        return self._models[model].taken if model in self._models else 0

    def own_limit(self, model: str) -> int | None:
        """The model's own limit."""
        return self._own_limits.get(model)

    def set_own_limit(self, model: str, limit: int | None) -> None:
        """Change it, from now on."""
        self._own_limits[model] = limit

    def check(self, model: str, count: int = 1) -> None:
        """Raise `Overloaded` unless there are so many places. An idle model takes any one request."""
        taken = self.taken(model)
        own_limit = self._own_limits.get(model)
        limit, setting = self._limit, "worker.max_requests_per_model"
        if own_limit is not None:
            limit, setting = own_limit, "models: max_concurrent_requests"
        if taken and taken + count > limit:
            raise Overloaded(
                f"The model `{model}` has {taken} requests already; it takes {limit} ({setting}).",
                retry_after_s=self._models[model].retry_after_s,
            )

    def take(self, model: str, count: int = 1) -> Reservation:
        """Take places, all or none. Raises `Overloaded`."""
        self.check(model, count)
        places = self._models.get(model)
        if places is None:
            places = self._models[model] = Occupancy(self._clock)
        return Reservation(places, count)
