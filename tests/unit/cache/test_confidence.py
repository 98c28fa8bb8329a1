import random

import pytest

from carpool.cache.confidence import confidence_interval, wilson_interval


def test_nothing_is_known_without_trials() -> None:
    assert confidence_interval(0, 0, alpha=0.05) == (0.0, 1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("events", "trials"), [(0, 1), (1, 1), (0, 300), (9, 300), (300, 300), (700, 10_000)]
)
def test_the_interval_holds_the_observed_rate_and_the_fixed_time_interval(events: int, trials: int) -> None:
    found = confidence_interval(events, trials, alpha=0.05)
    at_once = wilson_interval(events, trials)
    assert 0 <= found.lower <= events / trials <= found.upper <= 1
    # To hold at every moment costs width, up to Wilson's approximation at the very ends.
    assert found.upper - found.lower > at_once.upper - at_once.lower - 0.01


def test_more_trials_make_it_shorter() -> None:
    widths = [
        interval.upper - interval.lower
        for n in (100, 300, 1000, 10_000)
        for interval in [confidence_interval(n // 50, n, alpha=0.05)]
    ]
    assert widths == sorted(widths, reverse=True)


def test_a_prior_that_fits_makes_it_shorter_and_one_that_does_not_makes_it_longer() -> None:
    flat = confidence_interval(9, 300, alpha=0.05)
    fitting = confidence_interval(9, 300, alpha=0.05, mean=0.03, strength=100)
    wrong = confidence_interval(9, 300, alpha=0.05, mean=0.6, strength=100)
    assert fitting.upper < flat.upper < wrong.upper


@pytest.mark.parametrize("mean", [0.03, 0.3])
def test_whoever_looks_at_every_moment_is_misled_no_more_often_than_promised(mean: float) -> None:
    dice = random.Random(3)
    misled, runs, rate, alpha = 0, 100, 0.05, 0.1
    for _ in range(runs):
        events = 0
        for trials in range(1, 101):
            events += dice.random() < rate
            interval = confidence_interval(events, trials, alpha=alpha, mean=mean, strength=100)
            if not interval.lower <= rate <= interval.upper:
                misled += 1
                break
    assert misled <= runs * alpha
