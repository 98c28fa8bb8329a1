"""The places at each model: how many requests it may have, running or waiting, and when to come back."""

import time
from collections import deque
from collections.abc import Callable, Mapping

from carpool.errors import Overloaded

_REMEMBERED = 64
"""Ends that the drain rate is measured over."""
_UNKNOWN_RETRY_S = 1.0
"""When to come back to a model that has answered nothing yet."""
_LONGEST_RETRY_S = 60.0


class _Model:
    def __init__(self) -> None:
        self.taken = 0
        self.ends: deque[float] = deque(maxlen=_REMEMBERED)
        """When the last places were given back."""


class Places:
    """Counts requests by model, each choice of a generation as one.

    A place is taken before anything is sent to the worker, and given back when the call has ended, however
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
        self._models: dict[str, _Model] = {}

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
                retry_after_s=self._retry_after_s(self._models[model]),
            )

    def take(self, model: str, count: int = 1) -> Callable[[], None]:
        """Take places; returns what gives them back, to be called once. Raises `Overloaded`."""
        self.check(model, count)
        state = self._models.setdefault(model, _Model())
        state.taken += count

        def give_back() -> None:
            state.taken -= count
            state.ends.extend([self._clock()] * count)

        return give_back

    def _retry_after_s(self, state: _Model) -> float:
        """When all who are there now should have their answers, at the rate of the last ends."""
        elapsed_s = self._clock() - state.ends[0] if state.ends else 0.0
        if elapsed_s <= 0:
            return _UNKNOWN_RETRY_S
        return min(max(state.taken * elapsed_s / len(state.ends), 1.0), _LONGEST_RETRY_S)
