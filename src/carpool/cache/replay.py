"""The nearest stored questions of each question of a stream, by exact search."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_ROWS = 512
_KEPT = 48
"""Earlier questions kept for each; entries that were never stored fall out of it later."""

Near = list[tuple[int, float]]
"""Indices of earlier questions with their cosines, nearest first."""


def neighbours(vectors: NDArray[np.float32], floor: float) -> list[Near]:
    """For each unit vector of [n, d], the earlier ones with a cosine above the floor."""
    found: list[Near] = []
    for start in range(0, len(vectors), _ROWS):
        scores = vectors[start : start + _ROWS] @ vectors[: start + _ROWS].T
        for row in range(len(scores)):
            earlier = scores[row, : start + row]
            rows = np.flatnonzero(earlier > floor)
            rows = rows[np.argsort(-earlier[rows])][:_KEPT]
            found.append([(int(each), float(earlier[each])) for each in rows])
    return found


def replay(
    near: Sequence[Near], serve: Callable[[int, Near], int | None], limit: int
) -> list[tuple[int, int]]:
    """Every question in order: `serve` picks one of the `limit` nearest stored ones, or it is stored itself.

    Returns the hits: the question and the stored one whose answer it got.
    """
    stored: set[int] = set()
    hits = []
    for index, earlier in enumerate(near):
        there = [each for each in earlier if each[0] in stored][:limit]
        match = serve(index, there) if there else None
        if match is None:
            stored.add(index)
        else:
            hits.append((index, match))
    return hits
