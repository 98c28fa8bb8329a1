"""Who uses which model now, and when each was used last."""

import time
from collections import Counter


class ModelUsage:
    """Counts the open requests of each model."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._used_at: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """A request to the model was sent."""
        self._open[name] += 1

    def end(self, name: str) -> None:
        """It has ended."""
        self._open[name] -= 1
        self.touch(name)

    def touch(self, name: str) -> None:
        """The model counts as used now."""
        self._used_at[name] = time.monotonic()

    def open_requests(self, name: str) -> int:
        """Requests without an end yet."""
        return self._open[name]

    @property
    def open_in_all(self) -> int:
        """Requests to any model."""
        return self._open.total()

    def idle_s(self, name: str) -> float:
        """Seconds since the model's last request ended; 0 while it has one, infinite before its first."""
        if self._open[name]:
            return 0.0
        return time.monotonic() - self._used_at.get(name, float("-inf"))
