"""Several texts in a row, which see nothing of each other: short ones cost less than in a row each.

Attention's products are one for each row and head. A dozen tokens make such small ones that they are mostly
overhead, and an eighth to a quarter of a batch's time. It also needs hardly any padding. The idea is that of
Krell et al., "Efficient Sequence Packing without Cross-contamination", https://arxiv.org/abs/2107.02027.
"""

from collections.abc import Sequence
from functools import partial
from heapq import heapify, heapreplace

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
        ids, positions, text_ids, types = (np.zeros(shape, np.int32) for _ in range(4))
        firsts = np.empty(len(texts), np.int32)
        counts = np.arange(max(lengths), dtype=np.int32)
        for place, row in enumerate(rows):
            start = 0
            for index in row:
                end = start + lengths[index]
                ids[place, start:end] = texts[index]
                positions[place, start:end] = counts[: lengths[index]]
                text_ids[place, start:end] = index + 1
                if seconds is not None:
                    types[place, start + seconds[index] : end] = 1
                firsts[index] = place * shape[1] + start
                start = end
        return {
            "input_ids": ids,
            "position_ids": positions,
            "text_ids": text_ids,
            "seeing_ids": text_ids if len(rows) < len(texts) else text_ids[:, :1],
            "token_type_ids": types,
            "firsts": firsts,
            "lengths": np.array(lengths, np.int32),
        }


def pack(lengths: Sequence[int]) -> list[list[int]]:
    """The indices of texts, row by row, as many to a row as is cheapest."""
    counts = {-(-len(lengths) // each) for each in _TEXTS_PER_ROW}
    single, *shared = (spread(lengths, count) for count in sorted(counts, reverse=True))
    narrow = [rows for rows in shared if width(lengths, rows) <= _WIDEST]
    return min([single, *narrow], key=partial(cost, lengths))


def cost(lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> float:
    """What rows of these texts cost, in tokens."""
    each = width(lengths, rows)
    return len(rows) * (each * (1 + each / _FREE_WIDTH) + _ROW_TOKENS)


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
