"""Steps of few rows, made to round as those of many."""

from dataclasses import replace

import numpy as np

from carpool.runtimes.decoder import Sample, SamplingParams, StepBatch


def padded(batch: StepBatch, num_samples: int, spare_block: int) -> StepBatch:
    """The batch, filled up with tokens of no consequence where a reproducible row has little company.

    The plugin multiplies few rows of activations with other kernels than many, so a sequence that is almost
    alone for a while would get other last digits, and with them another text. From `num_samples` rows on, as
    far as `pieces` lets it go, they depend neither on the number of rows nor on a row's place. The further
    rows cost time, hence only sequences that were promised the same text pay for them, and steps that draw
    nothing. `spare_block` is no sequence's.
    """
    samples = batch.samples
    missing = num_samples - len(samples)
    if missing < 1:
        return batch
    is_promised = any(each.params.reproducible for each in samples)
    if samples and not is_promised and not _repeats(batch, num_samples):
        return batch
    num_rows, num_tokens = len(batch.past_lens), len(batch.token_ids)
    further = np.arange(1, missing + 1, dtype=np.int32)
    nothing = np.zeros(missing, np.int32)
    return replace(
        batch,
        token_ids=np.append(batch.token_ids, nothing),
        past_lens=np.append(batch.past_lens, nothing),
        subsequence_begins=np.append(batch.subsequence_begins, num_tokens + further),
        block_indices=np.append(batch.block_indices, nothing + np.int32(spare_block)),
        block_indices_begins=np.append(batch.block_indices_begins, len(batch.block_indices) + further),
        samples=[
            *samples,
            *(Sample(num_rows + i, SamplingParams(temperature=0), (), ()) for i in range(missing)),
        ],
    )


def _repeats(batch: StepBatch, num_samples: int) -> bool:
    """Whether one of so few tokens is of a row that draws none.

    Reproducible sequences compute token by token what they had drawn before they gave way. Other pieces that
    draw nothing are whole blocks, but for the last tokens of such a sequence's prompt.
    """
    return len(batch.token_ids) < num_samples and len(batch.samples) < len(batch.past_lens)
