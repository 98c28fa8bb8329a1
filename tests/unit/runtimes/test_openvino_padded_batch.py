"""A row for each text."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from carpool.runtimes.openvino.padded_batch import PaddedBatch, balanced_ranges


def largest(lengths: list[int], parts: list[tuple[int, int]]) -> int:
    return max((end - start) * lengths[end - 1] for start, end in parts)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9).map(sorted), st.integers(1, 4))
def test_no_other_cut_has_a_smaller_largest_part(lengths: list[int], count: int) -> None:
    count = min(count, len(lengths))
    parts = balanced_ranges(lengths, count)
    assert len(parts) == count
    assert [place for start, end in parts for place in range(start, end)] == list(range(len(lengths)))
    assert all(start < end for start, end in parts)
    every = (
        list(itertools.pairwise([0, *inner, len(lengths)]))
        for inner in itertools.combinations(range(1, len(lengths)), count - 1)
    )
    assert largest(lengths, parts) == min(largest(lengths, cut) for cut in every)


def test_parts_are_cut_by_length() -> None:
    assert PaddedBatch().cut([9, 2, 8, 3, 1], 2) == [[4, 1, 3], [2, 0]]


def test_inputs() -> None:
    arrays = PaddedBatch().inputs([[5], [6, 7, 8]], [1, 2])
    assert arrays["input_ids"].tolist() == [[5, 0, 0], [6, 7, 8]]
    assert arrays["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert arrays["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]
