"""An interval for a rate that holds at every moment, however often one looks and whenever one stops.

The beta-binomial mixture: betting against a rate p with a Beta(a, b) mixture of alternatives multiplies a
gambler's money by M(p) = B(a + k, b + n - k) / B(a, b) / (p^k (1 - p)^(n - k)) after k events in n trials. If
p is the rate, M is a martingale that starts at 1, so it ever reaches 1/alpha with probability alpha at most
(Ville). The rates at which it has not are the interval: Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", 2021, section 3; in terms of betting Waudby-Smith, Ramdas,
"Estimating means of bounded random variables by betting", 2023. A Beta that fits makes the interval shorter,
one that does not makes it longer; it holds either way. It assumes that the rate does not change meanwhile.
"""

from collections.abc import Callable
from math import lgamma, log
from typing import NamedTuple

_STEPS = 50
"""Halvings of a bound's bracket."""


class Interval(NamedTuple):
    """Two bounds of a rate, from 0 to 1."""

    lower: float
    upper: float


def confidence_interval(
    events: int, trials: int, *, alpha: float, mean: float = 0.5, strength: float = 2.0
) -> Interval:
    """The interval that misses the rate, at any time ever, with probability `alpha` at most.

    `mean` and `strength` are of the Beta mixture: its expected rate, and how many trials it is worth.
    """
    a, b = mean * strength, (1 - mean) * strength
    evidence = _log_beta(a + events, b + trials - events) - _log_beta(a, b) + log(alpha)
    best = events / trials if trials else mean

    def refuted(rate: float) -> bool:
        return evidence > _log_likelihood(rate, events, trials)

    return Interval(
        _boundary(0.0, best, refuted) if events else 0.0,
        _boundary(1.0, best, refuted) if events < trials else 1.0,
    )


def wilson_interval(events: float, trials: float, z: float = 1.96) -> Interval:
    """The Wilson score interval (1927) at one fixed moment; `z` 1.96 for 95 %.

    The counts of a sample that is not a simple one are its effective ones, which need not be whole.
    """
    if not trials:
        return Interval(0.0, 1.0)
    rate, extra = events / trials, z * z / trials
    centre = (rate + extra / 2) / (1 + extra)
    half = z * ((rate * (1 - rate) + extra / 4) / trials) ** 0.5 / (1 + extra)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def _boundary(outside: float, inside: float, refuted: Callable[[float], bool]) -> float:
    """Where refuted rates end; the outer end of the last bracket, so that rounding never shortens."""
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_likelihood(rate: float, events: int, trials: int) -> float:
    misses = trials - events
    return (events * log(rate) if events else 0.0) + (misses * log(1 - rate) if misses else 0.0)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
