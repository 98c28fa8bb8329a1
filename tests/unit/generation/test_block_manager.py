"""Ownership, promises and the prefix cache."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.generation import GenerationRequest
from carpool.generation.block_manager import BlockManager
from carpool.generation.sequence import Sequence
from tests.unit.generation.ride import prompt


def sequence(prompt_ids: list[int], prefix_root: int = 0) -> Sequence:
    return Sequence(GenerationRequest(request_id=1, prompt_ids=prompt_ids), 0, 100, prefix_root)


def compute(blocks: BlockManager, seq: Sequence) -> None:
    """As if a step had computed all tokens of an admitted sequence."""
    assert blocks.grow(seq, seq.num_tokens)
    seq.num_computed_tokens = seq.num_tokens
    blocks.register(seq)


def admitted(blocks: BlockManager, prompt_ids: list[int], prefix_root: int = 0) -> Sequence:
    seq = sequence(prompt_ids, prefix_root)
    assert blocks.admit(seq, seq.num_tokens)
    return seq


def test_promised_blocks_are_not_given_to_others() -> None:
    blocks = BlockManager(num_blocks=10, block_size=4)
    first = sequence(prompt(5))
    assert blocks.admit(first, 28)
    second = sequence(prompt(16, salt=1))
    assert not blocks.admit(second, 16)
    assert blocks.admit(second, 12)
    assert not blocks.grow(second, 16)
    assert blocks.num_used == 0
    assert blocks.grow(first, 28)
    assert blocks.grow(second, 12)
    blocks.check_integrity([first, second])
    blocks.free(first)
    assert blocks.grow(second, 16)
    blocks.check_integrity([second])


def test_a_refused_admission_changes_nothing() -> None:
    blocks = BlockManager(num_blocks=4, block_size=4)
    owner = admitted(blocks, prompt(9))
    compute(blocks, owner)
    late = sequence([*prompt(9), 1, 2, 3])
    assert not blocks.admit(late, 20)
    assert (len(late.block_table), late.num_computed_tokens, late.num_reserved_blocks) == (0, 0, 0)
    blocks.check_integrity([owner])


def test_a_shared_prefix_is_owned_twice_and_its_last_tokens_are_left_to_compute() -> None:
    blocks = BlockManager(num_blocks=10, block_size=4)
    first = admitted(blocks, prompt(12))
    compute(blocks, first)
    second = admitted(blocks, prompt(12))
    assert second.num_computed_tokens == 8
    assert second.block_table == first.block_table[:2]
    compute(blocks, second)
    assert second.block_table[2] != first.block_table[2]
    blocks.check_integrity([first, second])
    blocks.free(first)
    blocks.check_integrity([second])
    blocks.free(second)
    assert blocks.num_used == 0


def test_only_the_same_tokens_after_the_same_tokens_match() -> None:
    blocks = BlockManager(num_blocks=20, block_size=4)
    compute(blocks, admitted(blocks, [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert sequence_hits(blocks, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0]) == 8
    assert sequence_hits(blocks, [1, 2, 3, 4, 5, 6, 7, 8, 0]) == 4  # never all but one
    assert sequence_hits(blocks, [1, 2, 3, 4, 5, 6, 7, 0, 0]) == 4
    assert sequence_hits(blocks, [5, 6, 7, 8, 9]) == 0
    assert sequence_hits(blocks, [0, 2, 3, 4, 5, 6, 7, 8, 9]) == 0
    assert sequence_hits(blocks, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0], prefix_root=-1) == 0


def sequence_hits(blocks: BlockManager, prompt_ids: list[int], prefix_root: int = 0) -> int:
    seq = sequence(prompt_ids, prefix_root)
    hits = blocks.match(seq)
    blocks.free(seq)
    return hits


def test_freed_blocks_are_reused_least_recently_used_first_and_ends_before_beginnings() -> None:
    blocks = BlockManager(num_blocks=6, block_size=4)
    for salt in (0, 1):
        seq = admitted(blocks, prompt(12, salt))
        compute(blocks, seq)
        blocks.free(seq)
    third = admitted(blocks, prompt(8, salt=2))
    compute(blocks, third)
    blocks.check_integrity([third])
    assert sequence_hits(blocks, [*prompt(12, salt=1), 0, 0]) == 12
    assert sequence_hits(blocks, [*prompt(12, salt=0), 0, 0]) == 4


def test_blocks_that_hold_nothing_are_used_before_cached_ones() -> None:
    blocks = BlockManager(num_blocks=6, block_size=4)
    for tokens in (prompt(8), prompt(10, salt=1)):  # four full blocks, then an end
        seq = admitted(blocks, tokens)
        compute(blocks, seq)
        blocks.free(seq)
    compute(blocks, admitted(blocks, prompt(8, salt=2)))
    assert sequence_hits(blocks, [*prompt(8), 0, 0]) == 8
    assert sequence_hits(blocks, prompt(10, salt=1)) == 8


@pytest.mark.parametrize("damage", ["lost", "stolen", "promise", "shared"])
def test_the_integrity_check_notices(damage: str) -> None:
    blocks = BlockManager(num_blocks=10, block_size=4)
    first, second = admitted(blocks, prompt(12)), admitted(blocks, prompt(12, salt=1))
    third = sequence([*prompt(12), 1, 1])
    for seq in (first, second):
        compute(blocks, seq)
    assert blocks.match(third) == 12
    blocks.check_integrity([first, second, third])
    if damage == "lost":
        first.block_table.pop()
    elif damage == "stolen":
        second.block_table[0] = first.block_table[0]
    elif damage == "promise":
        first.num_reserved_blocks += 1
    else:
        third.num_computed_tokens = 8
    with pytest.raises(RuntimeError, match="not in order"):
        blocks.check_integrity([first, second, third])


@given(
    operations=st.lists(
        st.tuples(
            st.sampled_from(["admit", "compute", "grow", "free"]), st.integers(0, 40), st.integers(0, 2)
        ),
        max_size=60,
    )
)
@settings(max_examples=100, deadline=None)
def test_no_block_is_lost_whatever_happens(operations: list[tuple[str, int, int]]) -> None:
    blocks = BlockManager(num_blocks=16, block_size=4)
    live: list[Sequence] = []
    for operation, number, salt in operations:
        if operation == "admit":
            seq = sequence(prompt(number + 1, salt))
            if blocks.admit(seq, seq.num_tokens + salt * 5):
                live.append(seq)
        elif live:
            seq = live[number % len(live)]
            if operation == "free":
                live.remove(seq)
                blocks.free(seq)
            elif operation == "compute":
                compute(blocks, seq)
            elif seq.num_computed_tokens == seq.num_tokens and blocks.grow(seq, seq.num_tokens + 1):
                seq.token_ids.append(salt)
                compute(blocks, seq)
        blocks.check_integrity(live)
    for seq in live:
        with pytest.raises(RuntimeError, match="idle with"):
            blocks.check_idle()
        blocks.free(seq)
    blocks.check_integrity([])
    blocks.check_idle()
