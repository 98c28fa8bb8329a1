"""The fit that predicts run times."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.inference_engine import CostModel


def fitted(overhead_ms: float, ms_per_cost: float, costs: list[float]) -> CostModel:
    model = CostModel()
    model.observe(1.0, 1.0, 5_000.0)  # the first call compiles
    for cost in costs:
        model.observe(cost, cost, overhead_ms + ms_per_cost * cost)
    return model


def test_it_knows_nothing_at_first() -> None:
    model = CostModel()
    assert not model.fitted
    assert model.predict_ms(100.0) == 0
    assert model.dispatch_cost == math.inf


def test_the_first_call_is_not_learned_from() -> None:
    model = CostModel()
    model.observe(10.0, 10.0, 9_000.0)
    assert not model.fitted
    model.observe(10.0, 10.0, 20.0)
    assert model.predict_ms(10.0) == pytest.approx(20.0)


@given(
    st.floats(0.0, 100.0),
    st.floats(0.001, 10.0),
    st.lists(st.floats(1.0, 1e4), min_size=5, max_size=50).filter(lambda costs: max(costs) > 2 * min(costs)),
)
def test_it_finds_both_coefficients(overhead_ms: float, ms_per_cost: float, costs: list[float]) -> None:
    model = fitted(overhead_ms, ms_per_cost, costs)
    for cost in costs:
        assert model.predict_ms(cost) == pytest.approx(overhead_ms + ms_per_cost * cost, rel=1e-3, abs=1e-3)


@given(st.lists(st.tuples(st.floats(1.0, 1e5), st.floats(0.0, 1e4)), min_size=2, max_size=60))
def test_predictions_are_never_negative(batches: list[tuple[float, float]]) -> None:
    model = CostModel()
    for cost, run_ms in batches:
        model.observe(cost, cost, run_ms)
    assert model.overhead_ms >= 0
    assert model.ms_per_cost >= 0


def test_equal_batches_are_read_as_proportional() -> None:
    model = fitted(0.0, 2.0, [32.0] * 20)
    assert model.predict_ms(16.0) == pytest.approx(32.0)
    assert model.cost_within(50.0) == pytest.approx(25.0)


def test_it_follows_a_model_that_changes_speed() -> None:
    model = fitted(5.0, 1.0, [10.0, 20.0, 30.0] * 20)
    for cost in [10.0, 20.0, 30.0] * 60:
        model.observe(cost, cost, 50.0 + 3 * cost)
    assert model.predict_ms(20.0) == pytest.approx(110.0, rel=0.1)


def test_a_stall_of_seconds_is_no_opinion_of_the_model() -> None:
    model = fitted(2.0, 0.05, [100.0, 1000.0, 2000.0] * 20)
    before = model.predict_ms(2000)
    model.observe(1000.0, 1000.0, 15_000.0)
    assert model.predict_ms(2000) < 1.5 * before
    for _ in range(100):  # but who stays slow is believed
        model.observe(1000.0, 1000.0, 15_000.0)
    assert model.predict_ms(1000) == pytest.approx(15_000, rel=0.2)


def test_the_first_large_batch_is_no_stall() -> None:
    chance = random.Random(3)
    for _ in range(50):
        model = CostModel()
        for _ in range(40):
            cost = chance.randint(6, 12)
            model.observe(cost, cost, (2 + 0.05 * cost) * chance.uniform(0.8, 1.3))
        model.observe(8192.0, 8192.0, 2 + 0.05 * 8192)
        assert model.cost_within(50.0) < 2 * 48 / 0.05


def test_a_backlog_is_counted_in_batches_and_padding() -> None:
    model = fitted(10.0, 1.0, [10.0, 20.0, 30.0])
    assert model.predict_backlog_ms(64, 640.0, 32, math.inf) == pytest.approx(2 * 10 + 640)
    assert model.predict_backlog_ms(64, 640.0, 32, 160.0) == pytest.approx(4 * 10 + 640)
    for _ in range(300):
        model.observe(20.0, 10.0, 30.0)
    assert model.padding == pytest.approx(2.0, rel=0.01)


def test_small_batches_alone_say_nothing_against_a_large_backlog() -> None:
    """A model that was used by one caller at a time may be as quick for 32 together."""
    chance = random.Random(3)
    model = CostModel()
    for number in range(200):
        cost = 1 + (number % 10 == 0)
        model.observe(cost, cost, chance.uniform(25.0, 35.0))
    steps = 50 * 512 / 32
    assert model.predict_backlog_ms(50, 50 * 512, 32, 32) < 2 * 30 * steps
    for _ in range(200):  # it is not
        model.observe(32.0, 32.0, 32 * 30.0)
    assert model.predict_backlog_ms(50, 50 * 512, 32, 32) == pytest.approx(32 * 30 * steps, rel=0.1)


def test_a_bound_on_run_time_holds_for_all_but_one_batch_in_fifty() -> None:
    chance = random.Random(7)
    model = CostModel()
    late = []
    for number in range(20_000):
        bulk = number > 100 and number % 8
        cost = int(min(64.0, model.cost_within(20.0))) if bulk else 1 + number % 7
        run_ms = (2 + 0.5 * cost) * chance.lognormvariate(0, 0.15 if bulk else 1.0)
        model.observe(cost, cost, run_ms, bound_ms=20.0 if bulk else math.inf)
        if bulk:
            late.append(run_ms > 20.0)
    assert 0.01 < sum(late[-10_000:]) / 10_000 < 0.03
    assert 1.1 < model.margin < 1.5


def test_a_steady_model_needs_no_margin() -> None:
    model = CostModel()
    for number in range(100):
        cost = 1 + number % 7
        model.observe(cost, cost, 2 + 0.5 * cost)
    assert model.predict_ms(model.cost_within(20.0)) == pytest.approx(20.0, rel=0.05)
