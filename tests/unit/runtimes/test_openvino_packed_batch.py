"""Several texts in a row."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carpool.runtimes.openvino.packed_batch import PackedBatch, longest, pack, spread
from carpool.runtimes.openvino.row_cost import BY_TOKEN, IN_BLOCKS, RowCost

COSTS = st.sampled_from([BY_TOKEN, IN_BLOCKS])
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


@given(LENGTHS, COSTS)
def test_packing_never_costs_more_than_a_row_for_each(lengths: list[int], cost: RowCost) -> None:
    rows = pack(lengths, cost)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert cost.of(len(rows), longest(lengths, rows)) <= cost.of(len(lengths), max(lengths))


@given(LENGTHS, COSTS)
def test_no_other_width_would_cost_less(lengths: list[int], cost: RowCost) -> None:
    rows = pack(lengths, cost)
    for width in range(-(-max(lengths) // 16) * 16, 513, 16):
        others = spread(lengths, min(-(-sum(lengths) // width), len(lengths)))
        if longest(lengths, others) <= 512:
            assert cost.of(len(rows), longest(lengths, rows)) <= cost.of(
                len(others), longest(lengths, others)
            )


def test_rows_of_several_texts_are_never_wide() -> None:
    assert longest([400] * 6, pack([400] * 6, BY_TOKEN)) == 400
    assert [len(row) for row in pack([3000, 20, 20], BY_TOKEN)] == [1] * 3


def test_short_texts_share_rows_and_long_ones_do_not() -> None:
    assert [len(row) for row in pack([12] * 24, BY_TOKEN)] == [4] * 6
    assert [len(row) for row in pack([200] * 3, BY_TOKEN)] == [1] * 3
    assert len(pack([120, *[12] * 10], BY_TOKEN)) == 2


def test_rows_fill_whole_blocks_where_there_are_blocks() -> None:
    lengths = [8, 20, 20, 12, 16, 20, 28, 4]
    assert [sum(lengths[index] for index in row) for row in pack(lengths, IN_BLOCKS)] == [64] * 2
    assert PackedBatch(IN_BLOCKS).inputs([[1] * 60] * 2, None)["input_ids"].shape == (2, 64)
    assert PackedBatch(BY_TOKEN).inputs([[1] * 60] * 2, None)["input_ids"].shape == (2, 60)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=20), COSTS)
def test_inputs_hold_every_text_where_they_say(texts: list[list[int]], cost: RowCost) -> None:
    arrays = PackedBatch(cost).inputs(texts, [len(text) // 2 for text in texts])
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
