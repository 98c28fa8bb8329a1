"""The padding of few rows."""

import numpy as np
import pytest

from carpool.runtimes.decoder import DecoderSpec, SamplingParams
from carpool.runtimes.openvino.padding import padded
from carpool.runtimes.step_check import check_batch
from tests.unit.runtimes.steps import GREEDY, Row, step

REPRODUCIBLE = SamplingParams(seed=3, reproducible=True)
SPARE = 5
SPEC = DecoderSpec(vocab_size=10, context_length=100, block_size=32, num_blocks=SPARE + 1)


@pytest.mark.parametrize("row", [Row([7], [2], 9, REPRODUCIBLE), Row([7], [2], 9, None)])
def test_a_reproducible_row_gets_company(row: Row) -> None:
    batch = padded(step(row), 2 if row.sample else 1, SPARE)
    check_batch(batch, SPEC)
    assert batch.token_ids.tolist() == [7, 0]
    assert batch.past_lens.tolist() == [9, 0]
    assert batch.block_indices.tolist() == [2, SPARE]
    assert batch.samples[-1].row == 1
    for name in ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins"):
        assert getattr(batch, name).dtype == np.int32
    assert batch.token_ids.dtype == np.int64


def test_one_of_two_is_enough_to_fill_up() -> None:
    batch = padded(step(Row([7, 8], [2], 9, GREEDY), Row([7], [3], 0, REPRODUCIBLE)), 5, SPARE)
    check_batch(batch, SPEC)
    assert batch.token_ids.tolist() == [7, 8, 7, 0, 0, 0]
    assert batch.subsequence_begins.tolist() == [0, 2, 3, 4, 5, 6]
    assert batch.block_indices.tolist() == [2, 3, SPARE, SPARE, SPARE]
    assert batch.block_indices_begins.tolist() == [0, 1, 2, 3, 4, 5]
    assert [each.row for each in batch.samples] == [0, 1, 2, 3, 4]


def test_a_row_that_repeats_its_tokens_gets_company_beside_others() -> None:
    batch = padded(step(Row([7], [2], 9, None), Row([7], [3], 4, GREEDY)), 5, SPARE)
    check_batch(batch, SPEC)
    assert len(batch.token_ids) >= 5
    assert [each.row for each in batch.samples] == [1, 2, 3, 4, 5]


def test_a_prompt_without_its_end_needs_no_company() -> None:
    batch = step(Row(list(range(8)), [2], 0, None), Row([7], [3], 4, GREEDY))
    assert padded(batch, 5, SPARE) is batch


def test_others_are_left_as_they_are() -> None:
    alone, together = step(Row([7], [2], 9, GREEDY)), step(*[Row([7], [2], 9, REPRODUCIBLE)] * 2)
    assert padded(alone, 5, SPARE) is alone
    assert padded(together, 2, SPARE) is together
