"""Texts in a row each, padded to the longest: what graphs made elsewhere take."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class PaddedBatch:
    """Implements `BatchLayout`: `input_ids`, `attention_mask` and `token_type_ids`, i32 [texts, tokens]."""

    shares_rows = False

    def size(self, lengths: Sequence[int]) -> int:
        """Tokens that are computed, padding included."""
        return len(lengths) * max(lengths)

    def cut(self, lengths: Sequence[int], count: int) -> list[list[int]]:
        """By length, so that a part pads little."""
        by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
        ranges = balanced_ranges([lengths[index] for index in by_length], count)
        return [by_length[start:end] for start, end in ranges]

    def inputs(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int] | None
    ) -> dict[str, NDArray[np.int32]]:
        """The arrays for token-id sequences."""
        shape = (len(texts), max(map(len, texts)))
        ids, mask, types = (np.zeros(shape, np.int32) for _ in range(3))
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
            if seconds is not None:
                types[row, seconds[row] : len(text)] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def balanced_ranges(lengths: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Cut ascending lengths into `count` ranges, none empty, so that the largest is small with padding.

    A range's size is its rows times its longest. The bound on it is found by bisection; a range takes as many
    rows as fit. `lengths` has at least `count` elements, all above 0.
    """

    def cut(bound: int) -> list[tuple[int, int]] | None:
        ranges = []
        start = 0
        for left in range(count - 1, -1, -1):
            end = start + 1
            while end < len(lengths) - left and (end + 1 - start) * lengths[end] <= bound:
                end += 1
            if (end - start) * lengths[end - 1] > bound:
                return None
            ranges.append((start, end))
            start = end
        return ranges if start == len(lengths) else None

    low, high = 1, len(lengths) * lengths[-1]
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cut(middle) else (middle + 1, high)
    return cut(low) or []
