"""How long a batch will take, learned from those that ran."""

from __future__ import annotations

import math

_DECAY = 0.98  # a batch counts half after 34 later ones
_LATE = 0.02
"""Share of batches that may run longer than `cost_within` was asked for."""
_LATE_STEP = 0.05
"""How far one late batch moves the margin."""
_NEAR = 0.5
"""A batch predicted to take less than this part of its bound says nothing about how late full ones are."""
_ROUNDING = 1e-6
_TRUSTED_AFTER = 8
"""Batches: a stall in one of so many makes the others look little worse."""
_MOST_LATE = 8.0
"""Times its prediction that a batch is learned to have taken, at most. A process that was stopped for seconds
would otherwise believe for hundreds of batches that each takes half as long. Of batches much larger than were
seen so far the truth is learned, as nothing is known of them."""
_MUCH_LARGER = 2.0
"""Times the mean cost of a batch."""
_STANDARD_ERRORS = 2.0
"""How far below the fitted time per cost its certain part lies."""
_PARAMETERS = 2  # of a line
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
        self.margin = 1.0
        """Measured over predicted run time that 49 of 50 batches which were cut to a run time stay below."""
        self._least_ms_per_cost = 0.0
        self._seen = 0
        self._w = self._x = self._y = self._xx = self._xy = self._yy = 0.0

    @property
    def fitted(self) -> bool:
        """Whether predictions rest on at least one batch."""
        return self._seen > 1

    @property
    def trusted(self) -> bool:
        """Whether predictions rest on enough batches to refuse work because of them."""
        return self._seen > _TRUSTED_AFTER

    @property
    def dispatch_cost(self) -> float:
        """What a call costs before its first item, in cost units; infinite as long as it is not known."""
        if not self.fitted:
            return math.inf
        return self.overhead_ms / self.ms_per_cost if self.ms_per_cost > 0 else math.inf

    def observe(
        self, padded_cost: float, plain_cost: float, run_ms: float, *, bound_ms: float = math.inf
    ) -> None:
        """Learn from one successful batch; `bound_ms` is the run time it was cut to."""
        predicted = self.predict_ms(padded_cost)
        # A small batch's time is mostly chance: margins learned from those would halve the large ones.
        if self.fitted and predicted > _NEAR * bound_ms / self.margin:
            self._widen(run_ms / predicted)
        if self.trusted and predicted > 0 and padded_cost * self._w < _MUCH_LARGER * self._x:
            run_ms = min(run_ms, _MOST_LATE * predicted)
        self._seen += 1
        if self._seen == 1:
            return
        self.padding += (1 - _DECAY) * (padded_cost / plain_cost - self.padding)
        self._w = self._w * _DECAY + 1
        self._x = self._x * _DECAY + padded_cost
        self._y = self._y * _DECAY + run_ms
        self._xx = self._xx * _DECAY + padded_cost * padded_cost
        self._xy = self._xy * _DECAY + padded_cost * run_ms
        self._yy = self._yy * _DECAY + run_ms * run_ms
        self._solve()

    def _widen(self, ratio: float) -> None:
        """Follow the quantile of a stream (Robbins, Monro 1951): late batches push up, the others let down.

        In balance one batch in 1 / _LATE is late. A single outlier moves it no further than any late batch.
        """
        late = ratio > self.margin + _ROUNDING
        self.margin = max(1.0, self.margin + _LATE_STEP * (late - _LATE))

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
        self._least_ms_per_cost = self._least_slope()  # here, as every task that arrives asks for it

    def predict_ms(self, padded_cost: float) -> float:
        """One batch of this cost, in ms; 0 as long as nothing is known."""
        return self.overhead_ms + self.ms_per_cost * padded_cost

    def predict_backlog_ms(self, items: int, plain_cost: float, max_items: int, max_cost: float) -> float:
        """A whole queue, in batches as full as the bounds allow, in ms; 0 as long as nothing is known.

        Work is refused because of it, so what is not known of larger batches than were seen counts in favour
        of the queue: a cost adds the least time that is as good as certain, and the rest is overhead.
        """
        padded = plain_cost * self.padding
        batches = items / max_items
        if padded > batches * max_cost:
            batches = padded / max_cost
        if self._w == 0:
            return 0.0
        slope = self._least_ms_per_cost
        overhead = max(0.0, (self._y - slope * self._x) / self._w)
        return overhead * batches + slope * padded

    def _least_slope(self) -> float:
        """The lower confidence limit of ms per cost, by the standard error of a fitted line's slope.

        Draper, Smith, Applied Regression Analysis, 1.4. 0 where all batches were alike, so that nothing is
        known of others.
        """
        x_spread = self._xx - self._x * self._x / self._w
        if self._w <= _PARAMETERS or x_spread < _MIN_SPREAD * self._x * self._x / self._w:
            return 0.0
        y_spread = self._yy - self._y * self._y / self._w
        together = self._xy - self._x * self._y / self._w
        slope = self.ms_per_cost
        residual = max(0.0, y_spread - 2 * slope * together + slope * slope * x_spread)
        error = math.sqrt(residual / (self._w - _PARAMETERS) / x_spread)
        return max(0.0, slope - _STANDARD_ERRORS * error)

    def cost_within(self, run_ms: float) -> float:
        """The largest cost that keeps 49 runs of 50 within this; infinite if cost does not matter."""
        if self.ms_per_cost <= 0:
            return math.inf
        return (run_ms / self.margin - self.overhead_ms) / self.ms_per_cost
