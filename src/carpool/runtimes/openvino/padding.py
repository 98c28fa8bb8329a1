"""Steps of a single row, made to round as those of many."""

from dataclasses import replace

import numpy as np

from carpool.runtimes.decoder import Sample, SamplingParams, StepBatch


def without_lone_row(batch: StepBatch, spare_block: int) -> StepBatch:
    """The batch, with a token of no consequence behind its last row where a reproducible one is alone.

    The plugin multiplies a single row of activations with other kernels than several, so a sequence that is
    alone for a while would get other last digits, and with them another text. With two rows or more they
    depend neither on the number of rows nor on a row's place. The further row costs time, hence only
    sequences that were promised the same text pay for it. `spare_block` is no sequence's.
    """
    if len(batch.samples) > 1 or not all(each.params.reproducible for each in batch.samples):
        return batch
    num_rows, num_tokens = len(batch.past_lens), len(batch.token_ids)
    return replace(
        batch,
        token_ids=np.append(batch.token_ids, 0),
        past_lens=np.append(batch.past_lens, np.int32(0)),
        subsequence_begins=np.append(batch.subsequence_begins, np.int32(num_tokens + 1)),
        block_indices=np.append(batch.block_indices, np.int32(spare_block)),
        block_indices_begins=np.append(batch.block_indices_begins, np.int32(len(batch.block_indices) + 1)),
        samples=[*batch.samples, Sample(num_rows, SamplingParams(temperature=0), (), ())],
    )
