"""Steps to run before the first request: the plugin packs weights and makes memory when it meets a shape."""

import numpy as np

from carpool.runtimes.decoder import DecoderSpec, Sample, SamplingParams, StepBatch, StepSize


def even_step(spec: DecoderSpec, size: StepSize) -> StepBatch:
    """A step of prompts of one length or nearly, of as many tokens and samples as asked for.

    Of fewer where the prompts, each with its part of the KV memory, would not fit into it or the context.
    """
    rows = min(size.samples, size.tokens, spec.num_blocks)
    blocks = spec.num_blocks // rows
    longest = min(spec.context_length, blocks * spec.block_size)
    lens = np.minimum(size.tokens // rows + (np.arange(rows) < size.tokens % rows), longest)
    blocks = -(-int(lens[0]) // spec.block_size)
    return StepBatch(
        token_ids=np.zeros(lens.sum(), np.int64),
        past_lens=np.zeros(rows, np.int32),
        subsequence_begins=np.concatenate([[0], np.cumsum(lens)]).astype(np.int32),
        block_indices=np.arange(rows * blocks, dtype=np.int32),
        block_indices_begins=np.arange(rows + 1, dtype=np.int32) * np.int32(blocks),
        samples=[Sample(row, SamplingParams(), (), ()) for row in range(rows)],
    )
