"""Writing step batches by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from carpool.runtimes.decoder import DecoderRuntime, Sample, SamplingParams, StepBatch

GREEDY = SamplingParams(temperature=0)


@dataclass
class Row:
    """One sequence's part of a step; `sample` None where none of its tokens' logits are wanted."""

    token_ids: Sequence[int]
    blocks: Sequence[int]
    past_len: int = 0
    sample: SamplingParams | None = GREEDY
    output_ids: Sequence[int] = field(default=())


def step(*rows: Row) -> StepBatch:
    def begins(lens: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.array([0, *np.cumsum(lens)], np.int32)

    return StepBatch(
        token_ids=np.concatenate([np.array(row.token_ids, np.int64) for row in rows]),
        past_lens=np.array([row.past_len for row in rows], np.int32),
        subsequence_begins=begins([len(row.token_ids) for row in rows]),
        block_indices=np.concatenate([np.array(row.blocks, np.int32) for row in rows]),
        block_indices_begins=begins([len(row.blocks) for row in rows]),
        samples=[
            Sample(i, row.sample, (), row.output_ids) for i, row in enumerate(rows) if row.sample is not None
        ],
    )


def generate(decoder: DecoderRuntime, prompt: Sequence[int], count: int, blocks: Sequence[int]) -> list[int]:
    """Greedy tokens of one sequence that has the decoder for itself."""
    output = list(decoder.launch(step(Row(prompt, blocks))).result().token_ids)
    while len(output) < count:
        row = Row(output[-1:], blocks, len(prompt) + len(output) - 1)
        output += decoder.launch(step(row)).result().token_ids
    return output
