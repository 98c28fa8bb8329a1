"""How long a batch will take, learned from those that ran."""

from __future__ import annotations

import math

_DECAY = 0.98  # a batch counts half after 34 later ones
_MIN_SPREAD = 1e-4  # below this relative variance of cost the two coefficients cannot be told apart


class CostModel:
    """An online fit of `run_ms = overhead_ms + ms_per_cost * cost` over a batch's padded cost.

    Least squares with exponentially decaying weights, kept as five running sums; both coefficients stay
    non-negative. The very first batch is not learned from: it pays for compilation and cold caches.
    """

    def __init__(self) -> None:
        self.overhead_ms = 0.0
        self.ms_per_cost = 0.0
        self.padding = 1.0
        """Padded cost over plain cost, decaying mean."""
        self._seen = 0
        self._w = self._x = self._y = self._xx = self._xy = 0.0

    @property
    def fitted(self) -> bool:
        """Whether predictions rest on at least one batch."""
        return self._seen > 1

    @property
    def dispatch_cost(self) -> float:
        """What a call costs before its first item, in cost units; infinite as long as it is not known."""
        if not self.fitted:
            return math.inf
        return self.overhead_ms / self.ms_per_cost if self.ms_per_cost > 0 else math.inf

    def observe(self, padded_cost: float, plain_cost: float, run_ms: float) -> None:
        """Learn from one successful batch."""
        self._seen += 1
        if self._seen == 1:
            return
        self.padding += (1 - _DECAY) * (padded_cost / plain_cost - self.padding)
        self._w = self._w * _DECAY + 1
        self._x = self._x * _DECAY + padded_cost
        self._y = self._y * _DECAY + run_ms
        self._xx = self._xx * _DECAY + padded_cost * padded_cost
        self._xy = self._xy * _DECAY + padded_cost * run_ms
        self._solve()

    def _solve(self) -> None:
        spread = self._w * self._xx - self._x * self._x
        if spread < _MIN_SPREAD * self._x * self._x:
            slope = self._y / self._x  # all batches alike: proportional, which overstates larger ones
        else:
            slope = (self._w * self._xy - self._x * self._y) / spread
        overhead = (self._y - slope * self._x) / self._w
        if slope < 0:
            slope, overhead = 0.0, self._y / self._w
        elif overhead < 0:
            slope, overhead = self._xy / self._xx, 0.0
        self.ms_per_cost, self.overhead_ms = slope, overhead

    def predict_ms(self, padded_cost: float) -> float:
        """One batch of this cost, in ms; 0 as long as nothing is known."""
        return self.overhead_ms + self.ms_per_cost * padded_cost

    def predict_backlog_ms(self, items: int, plain_cost: float, max_items: int, max_cost: float) -> float:
        """A whole queue, in batches as full as the bounds allow, in ms; 0 as long as nothing is known."""
        padded = plain_cost * self.padding
        batches = items / max_items
        if padded > batches * max_cost:
            batches = padded / max_cost
        return self.overhead_ms * batches + self.ms_per_cost * padded

    def cost_within(self, run_ms: float) -> float:
        """The largest cost that is predicted to run no longer than this; infinite if cost does not matter."""
        if self.ms_per_cost <= 0:
            return math.inf
        return (run_ms - self.overhead_ms) / self.ms_per_cost
