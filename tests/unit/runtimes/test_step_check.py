"""Every contradiction in a batch is found before native code reads it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from carpool.runtimes.decoder import DecoderSpec, Sample, SamplingParams
from carpool.runtimes.step_check import check_batch
from tests.unit.runtimes.steps import Row, step

SPEC = DecoderSpec(vocab_size=100, context_length=64, block_size=32, num_blocks=4)
GOOD = step(Row([1, 2, 3], [0]), Row([99], [1, 2], 40), Row([-1], [3], 31))


def ints(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, np.int32)


def test_a_batch_that_fits_passes() -> None:
    check_batch(GOOD, SPEC)


@pytest.mark.parametrize(
    "change",
    [
        {"past_lens": ints()},
        {"past_lens": ints(0, 40)},
        {"past_lens": ints(0, -1, 31)},
        {"past_lens": ints(0, 64, 31)},
        {"past_lens": ints(30, 40, 31)},
        {"subsequence_begins": ints(0, 3, 4)},
        {"subsequence_begins": ints(0, 3, 4, 6)},
        {"subsequence_begins": ints(0, 5, 4, 5)},
        {"subsequence_begins": ints(0, 3, 3, 5)},
        {"subsequence_begins": ints(1, 3, 4, 5)},
        {"block_indices_begins": ints(0, 1, 3)},
        {"block_indices_begins": ints(0, 2, 3, 4)},
        {"block_indices_begins": ints(0, 1, 3, 5)},
        {"block_indices": ints(0, 1, 2, 4)},
        {"block_indices": ints(0, 1, 2, -1)},
        {"token_ids": np.array([1, 2, 3, 100, -1])},
        {"samples": [Sample(3, SamplingParams(), (), ())]},
        {"samples": [Sample(-1, SamplingParams(), (), ())]},
    ],
    ids=str,
)
def test_a_contradiction_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_batch(replace(GOOD, **change), SPEC)
