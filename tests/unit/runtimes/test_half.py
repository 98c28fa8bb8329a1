"""bf16 logits by their bits: all of them as float32, and the likeliest without that."""

import numpy as np
import pytest

from carpool.runtimes.half import likeliest, minus_infinity, numbers
from tests.unit.runtimes.halves import halved

INF, NAN = np.inf, np.nan


def test_numbers_are_what_the_bits_mean() -> None:
    wide = np.array([[1.5, -2, INF], [0, NAN, -INF]], np.float32)
    np.testing.assert_array_equal(numbers(halved(wide)), wide)
    assert numbers(wide).base is wide


def test_minus_infinity_can_be_put_into_either() -> None:
    for rows in (np.ones((2, 3), np.float32), halved(np.ones((2, 3), np.float32))):
        rows[1, 2] = minus_infinity(rows)
        assert numbers(rows).tolist() == [[1, 1, 1], [1, 1, -INF]]


def test_the_likeliest_are_those_of_float32() -> None:
    bits = halved(np.random.default_rng(0).normal(size=(40, 500)).astype(np.float32))
    expected = numbers(bits).argmax(axis=1).tolist()
    for nan_fills_rows in (False, True):
        for rows in (bits, numbers(bits)):
            assert likeliest(rows, nan_fills_rows=nan_fills_rows) == expected


def test_of_equals_the_first_is_taken() -> None:
    rows = np.array([[-1, 2, 0, 2], [0.5, -8, 0.25, -INF]], np.float32)
    for logits in (rows, halved(rows)):
        assert likeliest(logits, nan_fills_rows=False) == [1, 0]


@pytest.mark.parametrize(
    "row", [[-3, -1, -2], [0, -1, -1], [1, INF, 2], [1, NAN, 2], [1, -NAN, 2], [NAN, NAN, NAN], [-INF] * 3]
)
def test_what_the_bits_do_not_settle_is_left_to_others(row: list[float]) -> None:
    rows = np.array([[1, 2, 3], row], np.float32)
    assert likeliest(halved(rows), nan_fills_rows=False) is None
    assert (likeliest(rows, nan_fills_rows=False) is None) == (
        not np.isfinite(max(row, key=lambda each: (each != each, each)))
    )


@pytest.mark.parametrize("row", [[NAN] * 3, [-NAN] * 3, [INF, 1, 2], [-3, -1, -2]])
def test_rows_of_nothing_but_nan_are_seen_in_one_pass(row: list[float]) -> None:
    rows = halved(np.array([[1, 2, 3], row], np.float32))
    assert likeliest(rows, nan_fills_rows=True) is None
