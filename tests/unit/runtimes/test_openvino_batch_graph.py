"""Batches cut into a part for each thread."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.runtimes.openvino.batch_graph import balanced_parts
from carpool.runtimes.openvino.encoder import OpenVinoEncoder
from carpool.runtimes.pooling import Pooling, PoolingMode
from tests.unit.runtimes.tiny_bert import TinyBert


def largest(lengths: list[int], parts: list[tuple[int, int]]) -> int:
    return max((end - start) * lengths[end - 1] for start, end in parts)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9).map(sorted), st.integers(1, 4))
def test_no_other_cut_has_a_smaller_largest_part(lengths: list[int], count: int) -> None:
    count = min(count, len(lengths))
    parts = balanced_parts(lengths, count)
    assert len(parts) == count
    assert [place for start, end in parts for place in range(start, end)] == list(range(len(lengths)))
    assert all(start < end for start, end in parts)
    every = (
        list(itertools.pairwise([0, *inner, len(lengths)]))
        for inner in itertools.combinations(range(1, len(lengths)), count - 1)
    )
    assert largest(lengths, parts) == min(largest(lengths, cut) for cut in every)


def test_a_large_batch_of_mixed_lengths_is_cut_and_gives_everyone_their_own_vector() -> None:
    checkpoint = TinyBert()
    runtime = OpenVinoEncoder(
        checkpoint, Pooling(PoolingMode.MEAN), num_threads=2, max_tokens=None, precision="f32"
    )
    lengths = [1 + index * 7 % 24 for index in range(40)]
    batch = [[index % 50, *([3] * (length - 1))] for index, length in enumerate(lengths)]
    before = runtime.computed_tokens
    vectors = runtime.encode(batch)
    computed = runtime.computed_tokens - before
    assert sum(lengths) < computed < len(batch) * max(lengths)
    alone = np.concatenate([runtime.encode([ids]) for ids in batch])
    assert vectors == pytest.approx(alone, abs=1e-5)


def test_a_small_batch_is_padded_as_a_whole() -> None:
    runtime = OpenVinoEncoder(TinyBert(), Pooling(PoolingMode.MEAN), num_threads=2, precision="f32")
    before = runtime.computed_tokens
    runtime.encode([[1], [2, 3, 4]])
    assert runtime.computed_tokens - before == 6
