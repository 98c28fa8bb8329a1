"""What a row of tokens costs an encoder, and how wide it is best made."""

from dataclasses import dataclass

from carpool.runtimes.openvino.device import Precision, uses_matrix_units

_REST = 2.5
"""What a token beyond a row's last whole block costs."""


@dataclass(frozen=True, slots=True)
class RowCost:
    """Fitted to all-MiniLM-L6-v2. The unit of cost is a token's, where a row is neither short nor wide."""

    row_tokens: float
    """What a row costs whatever its width: its products' fixed parts."""
    free_width: float
    """A row of this width costs twice what its tokens cost, as each looks at all others of the row."""
    block: int
    """Attention takes so many tokens of a row at a time. Those beyond the last whole block cost more than the
    others, most of them more than the padding that would complete the block."""

    def width(self, tokens: int) -> int:
        """The width in which a row of so many tokens costs least."""
        rest = tokens % self.block
        return tokens + self.block - rest if rest * _REST > self.block else tokens

    def of(self, rows: int, tokens: int) -> float:
        """What so many rows of so many tokens cost, in their best width."""
        rest = tokens % self.block
        whole = tokens - rest + min(self.block, rest * _REST)
        return rows * (whole * (1 + whole / self.free_width) + self.row_tokens)


IN_BLOCKS = RowCost(row_tokens=1, free_width=640, block=16)
"""On AMX, where quick products make attention a larger part. A row of 60 tokens takes a thread 3.0 ms, one
of 64 tokens 2.5 ms."""
BY_TOKEN = RowCost(row_tokens=3, free_width=1000, block=1)
"""Elsewhere. Wider models gain less from rows that several texts share, and lose less by them."""


def row_cost(precision: Precision) -> RowCost:
    """That of this CPU, for what is computed in `precision`."""
    return IN_BLOCKS if uses_matrix_units(precision) else BY_TOKEN
