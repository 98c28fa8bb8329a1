"""bf16 logits: the likeliest tokens from their bits, and all of them as float32."""

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from carpool.runtimes.decoder import Sample, SamplingParams
from carpool.runtimes.openvino.half_logits import Widening, bits_of, likeliest
from carpool.runtimes.sampling import sample

INF, NAN = np.inf, np.nan


def half(rows: object) -> ov.Tensor:
    """A bf16 tensor of numbers that bf16 has."""
    wide = np.array(rows, np.float32)
    bits = (wide.view(np.uint32) >> 16).astype(np.uint16)
    return ov.Tensor(bits.reshape(-1), ov.Shape(wide.shape), ov.Type.bf16)


def drawn(wide: NDArray[np.float32]) -> list[int]:
    greedy = [Sample(row, SamplingParams(temperature=0), (), ()) for row in range(len(wide))]
    return list(sample(wide, greedy).token_ids)


def test_the_likeliest_are_those_of_float32() -> None:
    wide = np.random.default_rng(0).normal(size=(40, 500)).astype(np.float32)
    wide = (wide.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert likeliest(bits_of(half(wide))) == drawn(wide)


def test_of_equals_the_first_is_taken() -> None:
    assert likeliest(bits_of(half([[-1, 2, 0, 2], [0.5, -8, 0.25, -INF]]))) == [1, 0]


@pytest.mark.parametrize(
    "row", [[-3, -1, -2], [0, -1, -1], [1, INF, 2], [1, NAN, 2], [1, -NAN, 2], [NAN, NAN, NAN]]
)
def test_what_the_bits_do_not_settle_is_left_to_others(row: list[float]) -> None:
    assert likeliest(bits_of(half([[1, 2, 3], row]))) is None


def test_widening_changes_no_number_and_may_change_its_shape() -> None:
    widen = Widening(num_threads=1)
    for rows in ([[1.5, -2, INF], [0, NAN, -INF]], [[3, 4, 5]], [[0.125, 7, 8]]):
        np.testing.assert_array_equal(widen(half(rows)), np.array(rows, np.float32))
