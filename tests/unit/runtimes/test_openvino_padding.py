"""The padding of single rows."""

import numpy as np
import pytest

from carpool.runtimes.decoder import DecoderSpec, SamplingParams
from carpool.runtimes.openvino.padding import without_lone_row
from carpool.runtimes.step_check import check_batch
from tests.unit.runtimes.steps import GREEDY, Row, step

REPRODUCIBLE = SamplingParams(seed=3, reproducible=True)
SPARE = 5


@pytest.mark.parametrize("row", [Row([7], [2], 9, REPRODUCIBLE), Row([7], [2], 9, None)])
def test_a_reproducible_row_gets_company(row: Row) -> None:
    padded = without_lone_row(step(row), SPARE)
    check_batch(padded, DecoderSpec(vocab_size=10, context_length=100, block_size=32, num_blocks=SPARE + 1))
    assert padded.token_ids.tolist() == [7, 0]
    assert padded.past_lens.tolist() == [9, 0]
    assert padded.block_indices.tolist() == [2, SPARE]
    assert padded.samples[-1].row == 1
    for name in ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins"):
        assert getattr(padded, name).dtype == np.int32
    assert padded.token_ids.dtype == np.int64


def test_others_are_left_as_they_are() -> None:
    alone, together = step(Row([7], [2], 9, GREEDY)), step(*[Row([7], [2], 9, REPRODUCIBLE)] * 2)
    assert without_lone_row(alone, SPARE) is alone
    assert without_lone_row(together, SPARE) is together
