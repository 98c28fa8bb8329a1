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

from carpool.runtimes.openvino.row_cost import RowCost

_WIDTH_STEP = 16
"""In tokens: the widths that are tried."""
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

    def __init__(self, row_cost: RowCost) -> None:
        self._row_cost = row_cost

    def inputs(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int] | None
    ) -> dict[str, NDArray[np.int32]]:
        """The arrays for token-id sequences."""
        lengths = list(map(len, texts))
        rows = pack(lengths, self._row_cost)
        shape = (len(rows), self._row_cost.width(longest(lengths, rows)))
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


def pack(lengths: Sequence[int], row_cost: RowCost) -> list[list[int]]:
    """The indices of texts, row by row, as many to a row as is cheapest."""
    longest_text, total = max(lengths), sum(lengths)
    widths = range(-(-longest_text // _WIDTH_STEP) * _WIDTH_STEP, _WIDEST + 1, _WIDTH_STEP)
    counts = {len(lengths), *(min(-(-total // each), len(lengths)) for each in widths)}
    # If the rows came out even; hardly more than one of them has to be dealt then.
    least = {count: row_cost.of(count, max(longest_text, -(-total // count))) for count in counts}
    best: list[list[int]] = []
    best_cost = math.inf
    for count in sorted(counts, key=least.__getitem__):
        if least[count] >= best_cost:
            break
        rows = spread(lengths, count)
        tokens = longest(lengths, rows)
        cost = row_cost.of(count, tokens)
        if cost < best_cost and (tokens <= _WIDEST or count == len(lengths)):
            best, best_cost = rows, cost
    return best


def longest(lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> int:
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
