"""Finding the few that matter in long rows of numbers, many rows at once, without sorting any.

Rows are float32 [n, size]. What is found in a row does not depend on the other rows. A row is first looked at
in strands: every s-th element, where s is the number of strands of 64 in it, because columns are what NumPy
reduces with vector instructions. The elements left over come after, each as a strand of its own.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STRAND = 64
"""Elements of a strand."""
_FEW = 4096
"""Elements of a row that are summed up one after the other."""

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]


def rows_of(rows: Floats, wanted: Sequence[int]) -> Floats:
    """Some of the rows, in ascending order; not copied if it is all of them."""
    return rows if len(wanted) == len(rows) else rows[list(wanted)]


def strand_maxima(rows: Floats) -> Floats:
    """The largest element of each strand, [n, strands]."""
    return _reduced(np.maximum, rows)


def above(rows: Floats, floors: Floats) -> list[Ids]:
    """Indices of each row's elements that are not below the row's floor, ascending."""
    return _by_row(np.flatnonzero(rows >= floors[:, None]), rows)


def _by_row(places: Ids, rows: Floats) -> list[Ids]:
    """Ascending places in all of `rows` to those in each."""
    count, size = rows.shape
    ends = np.searchsorted(places, size * np.arange(1, count + 1))
    return [ids - size * row for row, ids in enumerate(np.split(places, ends[:-1]))]


def largest(rows: Floats, counts: Sequence[int], maxima: Floats) -> list[Ids]:
    """Indices of the `counts[i]` largest elements of row i, largest first, of equals the lower index first.

    The count-th largest of the strands' maxima is a floor under the count-th largest element, so only
    elements above it are sorted, and only strands that have some are searched.
    """
    ascending = np.sort(maxima, axis=1)
    floors = np.array(
        [
            np.inf if count == 0 else -np.inf if count > len(each) else each[len(each) - count]
            for each, count in zip(ascending, counts, strict=True)
        ],
        np.float32,
    )
    found = []
    for row, ids, count in zip(rows, _above_in_strands(rows, floors, maxima), counts, strict=True):
        order: Ids = ids[np.argsort(-row[ids], kind="stable")[:count]]
        found.append(order)
    return found


def _above_in_strands(rows: Floats, floors: Floats, maxima: Floats) -> list[Ids]:
    """As `above`, faster where few strands have such elements."""
    count, size = rows.shape
    strands = size // _STRAND
    of_row, strand = np.nonzero(maxima[:, :strands] >= floors[:, None])
    if 4 * len(of_row) > count * strands:
        return above(rows, floors)
    even = strands * _STRAND
    searched = rows[:, :even].reshape(count, _STRAND, strands)[of_row, :, strand]
    which, place = np.nonzero(searched >= floors[of_row, None])
    left_row, left_place = np.nonzero(rows[:, even:] >= floors[:, None])
    places = np.concatenate(
        [size * of_row[which] + place * strands + strand[which], size * left_row + even + left_place]
    )
    return _by_row(np.sort(places), rows)


def drawn(weights: Floats, fraction: float) -> int:
    """Where the running sum of weights [size] first exceeds a fraction (below 1) of their sum; never a zero.

    The inverse of the distribution function.
    """
    reached = weights.cumsum(dtype=np.float64)
    return int(reached.searchsorted(_target(fraction, reached[-1]), side="right"))


def drawn_from_long(weights: Floats, fractions: Sequence[float]) -> list[int]:
    """As `drawn` for many rows; where these are long, with the elements in the order of their strands."""
    if weights.shape[1] <= _FEW:
        return [drawn(row, fraction) for row, fraction in zip(weights, fractions, strict=True)]
    reached = np.cumsum(_reduced(np.add, weights), axis=1, dtype=np.float64)
    found = []
    for row, sums, fraction in zip(weights, reached, fractions, strict=True):
        target = _target(fraction, sums[-1])
        strand = int(sums.searchsorted(target, side="right"))
        found.append(_in_strand(row, strand, target - (sums[strand - 1] if strand else 0.0)))
    return found


def _target(fraction: float, total: np.float64) -> float:
    return min(fraction * float(total), math.nextafter(total, 0))


def _in_strand(weights: Floats, strand: int, target: float) -> int:
    strands = len(weights) // _STRAND
    if strand >= strands:
        return strands * _STRAND + strand - strands
    within = weights[strand : strands * _STRAND : strands]
    place = int(np.searchsorted(np.cumsum(within, dtype=np.float64), target, side="right"))
    if place == _STRAND:  # rounding: the strand's own sum was a trifle larger
        place = int(np.flatnonzero(within)[-1])
    return strand + place * strands


def _reduced(operation: np.ufunc, rows: Floats) -> Floats:
    """`operation` over each strand, [n, strands]."""
    count, size = rows.shape
    strands = size // _STRAND
    even = strands * _STRAND
    reduced: Floats = operation.reduce(rows[:, :even].reshape(count, _STRAND, strands), axis=1)
    return reduced if even == size else np.concatenate([reduced, rows[:, even:]], axis=1)
