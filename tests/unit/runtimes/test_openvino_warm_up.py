"""What is run before the first request."""

import numpy as np
import pytest

from carpool.runtimes.decoder import DecoderSpec, StepSize
from carpool.runtimes.openvino.warm_up import even_step
from carpool.runtimes.step_check import check_batch


@pytest.mark.parametrize(
    ("size", "num_blocks", "context_length", "lens"),
    [
        (StepSize(1, 1), 9, 100, [1]),
        (StepSize(8, 1), 9, 100, [8]),
        (StepSize(10, 4), 9, 100, [3, 3, 2, 2]),
        (StepSize(3, 8), 9, 100, [1, 1, 1]),  # fewer tokens than samples
        (StepSize(40, 4), 3, 100, [8, 8, 8]),  # fewer blocks than samples, and than tokens
        (StepSize(40, 2), 9, 11, [11, 11]),
    ],
)
def test_a_step_is_as_large_as_asked_for_or_as_fits(
    size: StepSize, num_blocks: int, context_length: int, lens: list[int]
) -> None:
    spec = DecoderSpec(vocab_size=50, context_length=context_length, block_size=8, num_blocks=num_blocks)
    step = even_step(spec, size)
    check_batch(step, spec)
    assert np.diff(step.subsequence_begins).tolist() == lens
    assert [each.row for each in step.samples] == list(range(len(lens)))
    assert len(set(step.block_indices.tolist())) == len(step.block_indices) <= num_blocks
