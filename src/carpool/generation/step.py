"""One engine step: which sequences take part, and the batch that the runtime gets."""

from array import array
from collections.abc import Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np

from carpool.runtimes.decoder import Sample, StepBatch, StepResult, in_flight

from .sequence import Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """A scheduled step."""

    rows: Rows[tuple[Sequence, int]]
    """Each sequence with how many of its uncomputed tokens this step computes."""
    batch: StepBatch
    sampled: Rows[Sequence]
    """The sequences whose last token is computed, in the order of `batch.samples`."""
    num_decodes: int
    """Rows that continue an output; the others work on prompts."""


def build_step(rows: Rows[tuple[Sequence, int]]) -> Step:
    """Lay the sequences' next tokens and block tables out as the arrays of a `StepBatch`."""
    past_lens = [seq.num_computed_tokens for seq, _ in rows]
    ends = [past + count for past, (_, count) in zip(past_lens, rows, strict=True)]
    tokens = chain.from_iterable(
        seq.token_ids[past:end] for (seq, _), past, end in zip(rows, past_lens, ends, strict=True)
    )
    sampled = [(row, seq) for row, (seq, _) in enumerate(rows) if ends[row] == len(seq.token_ids)]
    samples = [seq.sample(row) for row, seq in sampled]
    num_decodes = sum(bool(seq.output_ids) and count == 1 for seq, count in rows)
    return Step(rows, _batch(rows, past_lens, tokens, samples), [seq for _, seq in sampled], num_decodes)


def build_step_ahead(places: Rows[tuple[Sequence, int]]) -> Step:
    """The step behind one in flight, of sequences each with its place among those that are sampled there."""
    rows = [(seq, 1) for seq, _ in places]
    past_lens = [seq.num_tokens for seq, _ in places]
    tokens = [in_flight(place) for _, place in places]
    samples = [seq.sample(row, num_in_flight=1) for row, (seq, _) in enumerate(places)]
    return Step(rows, _batch(rows, past_lens, tokens, samples), [seq for seq, _ in places], len(rows))


def _batch(
    rows: Rows[tuple[Sequence, int]], past_lens: Rows[int], tokens: Iterable[int], samples: Rows[Sample]
) -> StepBatch:
    block_indices = array("i")
    for seq, _ in rows:
        block_indices.extend(seq.block_table)
    return StepBatch(
        token_ids=np.fromiter(tokens, np.int64),
        past_lens=np.array(past_lens, np.int32),
        subsequence_begins=np.fromiter(accumulate((count for _, count in rows), initial=0), np.int32),
        block_indices=np.frombuffer(block_indices, np.int32),
        block_indices_begins=np.fromiter(
            accumulate((len(seq.block_table) for seq, _ in rows), initial=0), np.int32
        ),
        samples=samples,
    )


def compute_masks(step: Step) -> None:
    """Have the masks ready that the step's draws will ask for."""
    for seq in step.sampled:
        if seq.matcher is not None:
            seq.matcher.mask()


def advance_grammars(step: Step, result: StepResult) -> None:
    """Move each sequence's matcher on by the token that was drawn."""
    for place, (seq, token_id) in enumerate(zip(step.sampled, result.token_ids, strict=True)):
        if seq.matcher is None or seq.matcher.is_over or place in result.unusable:
            continue
        if token_id not in seq.stop_ids:
            seq.matcher.advance(token_id)
