"""Steps of many tokens, cut so that they round as those of few."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from carpool.runtimes.decoder import StepBatch, StepResult


def pieces(batch: StepBatch, most_tokens: int, block_size: int) -> list[StepBatch]:
    """The batch as batches of at most `most_tokens`, no less than two blocks, to be run one after the other.

    From some number of tokens on, some of the plugin's kernels give other last digits: a prompt's would
    depend on the size of the steps that it is computed in, and so on its company. A prompt is cut where a KV
    block ends, as quantised blocks change while they fill, and not before its last token.
    """
    if len(batch.token_ids) <= most_tokens:
        return [batch]
    ends = [0, *_ends(batch, most_tokens, block_size)]
    return [_piece(batch, begin, end, block_size) for begin, end in pairwise(ends)]


def joined(results: Sequence[StepResult]) -> StepResult:
    """What the batch drew, from what its pieces did."""
    if len(results) == 1:
        return results[0]
    token_ids = [token_id for each in results for token_id in each.token_ids]
    logprobs = [logprob for each in results for logprob in each.logprobs]
    befores = np.cumsum([0, *(len(each.token_ids) for each in results)]).tolist()
    unusable = [
        before + place for before, each in zip(befores, results, strict=False) for place in each.unusable
    ]
    return StepResult(token_ids, logprobs, unusable)


def _ends(batch: StepBatch, most_tokens: int, block_size: int) -> Iterator[int]:
    """Where pieces end, in tokens of the batch."""
    begin = 0
    begins = batch.subsequence_begins.tolist()
    for past, first, end in zip(batch.past_lens.tolist(), begins, begins[1:], strict=False):
        while end - begin > most_tokens:
            position = past + begin + most_tokens - first
            cut = max(begin + most_tokens - position % block_size, first)
            earlier = max(cut - block_size, first)
            if end - cut == 1 and earlier > begin:  # one token alone would be computed as decode steps are
                cut = earlier
            yield cut
            begin = cut
    yield len(batch.token_ids)


def _piece(batch: StepBatch, begin: int, end: int, block_size: int) -> StepBatch:
    """The tokens from `begin` to `end`, of the sequences that have some there."""
    begins = batch.subsequence_begins
    first = int(np.searchsorted(begins, begin, side="right")) - 1
    last = int(np.searchsorted(begins, end, side="left"))
    cut = np.clip(begins[first : last + 1], begin, end)
    past_lens = batch.past_lens[first:last] + cut[:-1] - begins[first:last]
    num_blocks = -(-(past_lens + np.diff(cut)) // block_size)
    tables = [
        batch.block_indices[at : at + count]
        for at, count in zip(batch.block_indices_begins[first:last], num_blocks, strict=True)
    ]
    return StepBatch(
        token_ids=batch.token_ids[begin:end],
        past_lens=past_lens,
        subsequence_begins=cut - begin,
        block_indices=np.concatenate(tables),
        block_indices_begins=np.concatenate([[0], np.cumsum(num_blocks)]).astype(np.int32),
        samples=[
            replace(each, row=each.row - first)
            for each in batch.samples
            if begin < begins[each.row + 1] <= end
        ],
    )
