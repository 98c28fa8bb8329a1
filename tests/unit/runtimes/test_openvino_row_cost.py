"""What rows cost, and how wide they are made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool.runtimes.openvino import device
from carpool.runtimes.openvino.row_cost import BY_TOKEN, IN_BLOCKS, row_cost


@pytest.mark.parametrize(
    ("tokens", "width"), [(1, 1), (6, 6), (7, 16), (16, 16), (38, 38), (39, 48), (60, 64)]
)
def test_a_block_is_completed_where_that_is_cheaper(tokens: int, width: int) -> None:
    assert IN_BLOCKS.width(tokens) == width
    assert BY_TOKEN.width(tokens) == tokens


@given(st.integers(1, 600), st.integers(1, 50))
def test_the_best_width_costs_what_is_told_and_more_tokens_never_cost_less(tokens: int, rows: int) -> None:
    for cost in (IN_BLOCKS, BY_TOKEN):
        assert cost.of(rows, cost.width(tokens)) == cost.of(rows, tokens)
        assert cost.of(rows, tokens) <= cost.of(rows, tokens + 1)


def test_blocks_are_those_of_matrix_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_matrix_units", lambda: True)
    assert row_cost("bf16") is IN_BLOCKS
    assert row_cost("f32") is BY_TOKEN
    monkeypatch.setattr(device, "has_matrix_units", lambda: False)
    assert row_cost("bf16") is BY_TOKEN
