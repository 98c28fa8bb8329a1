"""Several texts in a row, which see nothing of each other: short ones cost less than in a row each.

Attention's products are one for each row and head. A dozen tokens make such small ones that they are mostly
overhead, and an eighth to a quarter of a batch's time. It also needs hardly any padding. The idea is that of
Krell et al., "Efficient Sequence Packing without Cross-contamination", https://arxiv.org/abs/2107.02027.
"""

import math
from collections.abc import Sequence
from heapq import heapify, heapreplace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

_TEXTS_PER_ROW = (1, 2, 3, 4, 6, 8, 12, 16)
"""On average: what is tried."""
# Fitted to all-MiniLM-L6-v2, in f32 and on AMX; wider models gain less and lose less.
_ROW_TOKENS = 3
"""What a row costs whatever its length, in tokens: its products' fixed parts."""
_FREE_WIDTH = 1000
"""In tokens: a row of this width costs twice what its tokens cost, as each looks at all others of the row."""
_WIDEST = 512
"""In tokens, a row of several texts. Their mask has a number for each two tokens of a row."""


class PackedBatch:
    """Implements `BatchLayout`.

    The arrays are i32 [rows, tokens]: `input_ids`; `position_ids`, from 0 in each text; `text_ids`, which
    tells a row's texts apart, 0 for padding; `seeing_ids`, the same, or [rows, 1] where each row has one
    text; `token_type_ids`. And i32 [texts]: `firsts`, where a text begins when rows are laid end to end, and
    `lengths`.
    """

    shares_rows = True

    def inputs(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int] | None
    ) -> dict[str, NDArray[np.int32]]:
        """The arrays for token-id sequences."""
        lengths = list(map(len, texts))
        rows = pack(lengths)
        shape = (len(rows), width(lengths, rows))
        firsts = [0] * len(texts)
        for place, row in enumerate(rows):
            start = place * shape[1]
            for index in row:
                firsts[index] = start
                start += lengths[index]
        counts = np.array(lengths, np.int32)
        # All texts' tokens one after another: each one's place in its text, and in the rows.
        within = np.arange(counts.sum(), dtype=np.int32) - np.repeat(counts.cumsum() - counts, counts)
        places = np.repeat(firsts, counts) + within
        ids, positions, text_ids, types = np.zeros((4, shape[0] * shape[1]), np.int32)
        ids[places] = np.fromiter(chain.from_iterable(texts), np.int32, len(places))
        positions[places] = within
        text_ids[places] = np.repeat(np.arange(1, len(texts) + 1), counts)
        if seconds is not None:
            types[places] = within >= np.repeat(seconds, counts)
        seeing_ids = text_ids.reshape(shape)
        return {
            "input_ids": ids.reshape(shape),
            "position_ids": positions.reshape(shape),
            "text_ids": text_ids.reshape(shape),
            "seeing_ids": seeing_ids if len(rows) < len(texts) else seeing_ids[:, :1],
            "token_type_ids": types.reshape(shape),
            "firsts": np.array(firsts, np.int32),
            "lengths": counts,
        }


def pack(lengths: Sequence[int]) -> list[list[int]]:
    """The indices of texts, row by row, as many to a row as is cheapest."""
    counts = {-(-len(lengths) // each) for each in _TEXTS_PER_ROW}
    longest, total = max(lengths), sum(lengths)
    # If the rows came out even; hardly more than one of them has to be dealt then.
    least = {count: cost(count, max(longest, -(-total // count))) for count in counts}
    best: list[list[int]] = []
    best_cost = math.inf
    for count in sorted(counts, key=least.__getitem__):
        if least[count] >= best_cost:
            break
        rows = spread(lengths, count)
        each = width(lengths, rows)
        if cost(count, each) < best_cost and (each <= _WIDEST or count == len(lengths)):
            best, best_cost = rows, cost(count, each)
    return best


def cost(rows: int, tokens: int) -> float:
    """What so many rows of so many tokens cost, in tokens."""
    return rows * (tokens * (1 + tokens / _FREE_WIDTH) + _ROW_TOKENS)


def width(lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> int:
    """The tokens of the longest row."""
    return max(sum(lengths[index] for index in row) for row in rows)


def spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Deal indices to `count` groups, none empty, of about the same sum of lengths.

    The longest first, each to the group with the smallest sum (Graham, "Bounds on Multiprocessing Timing
    Anomalies", 1969): the largest sum is at most 4/3 of the best possible. There are `count` lengths or more.
    """
    groups: list[list[int]] = [[] for _ in range(count)]
    heap = [(0, place) for place in range(count)]
    heapify(heap)
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        total, place = heap[0]
        groups[place].append(index)
        heapreplace(heap, (total + lengths[index], place))
    return groups
