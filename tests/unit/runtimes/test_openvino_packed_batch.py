"""Several texts in a row."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carpool.runtimes.openvino.packed_batch import PackedBatch, cost, pack, spread, width

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def largest(lengths: list[int], groups: list[list[int]]) -> int:
    return max(sum(lengths[index] for index in group) for group in groups)


@given(LENGTHS, st.integers(1, 12))
def test_everything_is_dealt_once_and_nobody_goes_without(lengths: list[int], count: int) -> None:
    count = min(count, len(lengths))
    groups = spread(lengths, count)
    assert len(groups) == count
    assert all(groups)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), st.integers(1, 3))
def test_the_largest_sum_is_at_most_four_thirds_of_the_best(lengths: list[int], count: int) -> None:
    count = min(count, len(lengths))
    best = min(
        max(sum(n for n, at in zip(lengths, places, strict=True) if at == group) for group in range(count))
        for places in itertools.product(range(count), repeat=len(lengths))
    )
    assert 3 * largest(lengths, spread(lengths, count)) <= 4 * best


@given(LENGTHS)
def test_packing_never_costs_more_than_a_row_for_each(lengths: list[int]) -> None:
    rows = pack(lengths)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert cost(len(rows), width(lengths, rows)) <= cost(len(lengths), max(lengths))


@given(LENGTHS)
def test_no_other_number_of_rows_would_cost_less(lengths: list[int]) -> None:
    rows = pack(lengths)
    for each in (1, 2, 3, 4, 6, 8, 12, 16):
        others = spread(lengths, -(-len(lengths) // each))
        if len(others) == len(lengths) or width(lengths, others) <= 512:
            assert cost(len(rows), width(lengths, rows)) <= cost(len(others), width(lengths, others))


def test_rows_of_several_texts_are_never_wide() -> None:
    assert width([400] * 6, pack([400] * 6)) == 400
    assert [len(row) for row in pack([3000, 20, 20])] == [1] * 3


def test_short_texts_share_rows_and_long_ones_do_not() -> None:
    assert [len(row) for row in pack([12] * 24)] == [4] * 6
    assert [len(row) for row in pack([200] * 3)] == [1] * 3
    assert len(pack([120, *[12] * 10])) == 2


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=20))
def test_inputs_hold_every_text_where_they_say(texts: list[list[int]]) -> None:
    arrays = PackedBatch().inputs(texts, [len(text) // 2 for text in texts])
    seeing, text_ids_2d = arrays["seeing_ids"], arrays["text_ids"]
    assert (seeing == (text_ids_2d if seeing.shape[1] > 1 else text_ids_2d[:, :1])).all()
    ids, positions, text_ids, types = (
        arrays[name].reshape(-1) for name in ("input_ids", "position_ids", "text_ids", "token_type_ids")
    )
    width = arrays["input_ids"].shape[1]
    for index, text in enumerate(texts):
        first, length = int(arrays["firsts"][index]), int(arrays["lengths"][index])
        assert first // width == (first + length - 1) // width, "a text is in one row"
        place = slice(first, first + length)
        assert ids[place].tolist() == text
        assert positions[place].tolist() == list(range(length))
        assert (text_ids[place] == index + 1).all()
        assert types[place].tolist() == [0] * (length // 2) + [1] * (length - length // 2)
    assert np.count_nonzero(text_ids) == sum(map(len, texts)), "the rest is padding"
