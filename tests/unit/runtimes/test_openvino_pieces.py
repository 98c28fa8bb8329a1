"""The cutting of steps of many tokens."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carpool.runtimes.decoder import DecoderSpec, StepResult, TokenLogprobs
from carpool.runtimes.openvino.pieces import joined, pieces
from carpool.runtimes.step_check import check_batch
from tests.unit.runtimes.steps import GREEDY, Row, step

BLOCK = 4
SPEC = DecoderSpec(vocab_size=10_000, context_length=1000, block_size=BLOCK, num_blocks=10_000)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Decode steps and parts of prompts, each with tokens and blocks of its own, some with spare ones."""
    found: list[Row] = []
    next_id = 0
    for _ in range(draw(st.integers(1, 8))):
        past = draw(st.integers(0, 9))
        count = draw(st.one_of(st.just(1), st.integers(1, 40)))
        blocks = -(-(past + count) // BLOCK) + draw(st.integers(0, 2))
        token_ids = range(next_id, next_id + count)
        found.append(
            Row(token_ids, range(next_id, next_id + blocks), past, draw(st.sampled_from([GREEDY, None])))
        )
        next_id += 100
    return found


@given(rows(), st.integers(2 * BLOCK, 30))
def test_pieces_are_the_batch_in_order(cut_rows: Sequence[Row], most_tokens: int) -> None:
    batch = step(*cut_rows)
    found = pieces(batch, most_tokens, BLOCK)
    computed = {number: row.past_len for number, row in enumerate(cut_rows)}
    sampled = []
    for piece in found:
        check_batch(piece, SPEC)
        assert len(piece.token_ids) <= most_tokens
        assert piece.past_lens.dtype == piece.subsequence_begins.dtype == np.int32
        assert piece.block_indices.dtype == piece.block_indices_begins.dtype == np.int32
        numbers = []
        for i, (past, begin, first_block) in enumerate(
            zip(piece.past_lens, piece.subsequence_begins, piece.block_indices_begins, strict=False)
        ):
            number = int(piece.token_ids[begin]) // 100
            numbers.append(number)
            row = cut_rows[number]
            assert past == computed[number]
            assert piece.block_indices[first_block] == row.blocks[0]
            count = int(piece.subsequence_begins[i + 1] - begin)
            assert count > 1 or len(row.token_ids) == 1 or computed[number] == row.past_len
            computed[number] += count
            is_whole = computed[number] == row.past_len + len(row.token_ids)
            assert is_whole or computed[number] % BLOCK == 0
        sampled += [numbers[each.row] for each in piece.samples]
        for each in piece.samples:
            row = cut_rows[numbers[each.row]]
            assert computed[numbers[each.row]] == row.past_len + len(row.token_ids)
    assert np.concatenate([piece.token_ids for piece in found]).tolist() == batch.token_ids.tolist()
    assert sampled == [each.row for each in batch.samples]


def test_what_is_small_enough_is_left_as_it_is() -> None:
    batch = step(Row(range(8), [0, 1]), Row([3], [2], 2))
    assert pieces(batch, 9, BLOCK) == [batch]
    assert len(pieces(batch, 8, BLOCK)) == 2


def test_pieces_are_filled_up_to_the_last_block() -> None:
    batch = step(Row([1], [0], 2), Row(range(40), range(1, 12), 1))
    assert [len(piece.token_ids) for piece in pieces(batch, 13, BLOCK)] == [12, 12, 12, 5]


def test_results_are_joined_in_order() -> None:
    logprobs = TokenLogprobs(-1.0, [(3, -1.0)])
    parts = [StepResult([5, 6], [None, logprobs], [1]), StepResult([], []), StepResult([7], [None], [0])]
    assert joined(parts) == StepResult([5, 6, 7], [None, logprobs, None], [1, 2])
