"""Texts in a row each, padded to the longest: what graphs made elsewhere take."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.openvino.row_cost import RowCost


class PaddedBatch:
    """Implements `BatchLayout`: `input_ids`, `attention_mask` and `token_type_ids`, i32 [texts, tokens]."""

    shares_rows = False

    def __init__(self, row_cost: RowCost, max_tokens: int) -> None:
        """`max_tokens`: the model has positions for no more."""
        self._row_cost = row_cost
        self._max_tokens = max_tokens

    def inputs(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int] | None
    ) -> dict[str, NDArray[np.int32]]:
        """The arrays for token-id sequences."""
        longest = max(map(len, texts))
        shape = (len(texts), max(longest, min(self._row_cost.width(longest), self._max_tokens)))
        ids, mask, types = (np.zeros(shape, np.int32) for _ in range(3))
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
            if seconds is not None:
                types[row, seconds[row] : len(text)] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
