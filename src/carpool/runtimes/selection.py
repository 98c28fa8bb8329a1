"""Finding the few that matter in long rows of numbers, many rows at once, without sorting any.

A row is looked at in strands of neighbours, whose statistics tell which of them are worth looking into. What
is found in a row does not depend on the other rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRAND = 128
"""Elements of a strand."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.intp]

StrandStatistics = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""From rows [n, whole strands] and factors [n]: of each strand the largest element and the sum of the weights
exp((element - the row's largest) * factor), both float32 [n, strands]. A row's do not depend on the other
rows. The next call may overwrite the results."""


def strand_statistics(rows: Floats, factors: Floats) -> tuple[Floats, Floats]:
    """See `StrandStatistics`."""
    maxima = in_strands(rows).max(axis=2)
    return maxima, in_strands(weigh(rows, maxima.max(axis=1), factors)).sum(axis=2)


def weigh(elements: Floats, highest: Floats, factors: Floats) -> Floats:
    """The weights of elements [n, any], of rows whose largest are `highest` [n]."""
    weights: Floats = elements - highest[:, None]
    weights *= factors[:, None]
    return np.exp(weights, out=weights)


def whole_strands(rows: Floats) -> Floats:
    """The rows with -inf at their ends up to a multiple of a strand's length."""
    missing = -rows.shape[1] % STRAND
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=-np.inf) if missing else rows


def in_strands(rows: Floats) -> Floats:
    """The same as [n, strands, elements]; a view."""
    return rows.reshape(len(rows), -1, STRAND)


@dataclass(frozen=True, slots=True)
class Strands:
    """Some rows and the statistics of their strands."""

    elements: Floats
    """[all, size], these rows among others."""
    rows: Ids
    """[n] Which these are."""
    factors: Floats
    """[n]"""
    maxima: Floats
    """[n, strands]"""
    sums: Floats
    """[n, strands]"""

    @classmethod
    def of_all(cls, rows: Floats, factors: Floats, statistics: StrandStatistics) -> "Strands":
        """Whole rows [n, whole strands]. They and what `statistics` returns are not copied."""
        return cls(rows, np.arange(len(rows)), factors, *statistics(rows, factors))

    @property
    def highest(self) -> Floats:
        """[n] The largest element of each row."""
        highest: Floats = self.maxima.max(axis=1)
        return highest

    def of(self, which: Sequence[int] | Ids) -> "Strands":
        """Some of the rows."""
        return Strands(
            self.elements, self.rows[which], self.factors[which], self.maxima[which], self.sums[which]
        )


def ranked(maxima: Floats, ranks: Sequence[int] | Ids) -> Floats:
    """The `ranks[i]`-th largest of row i's strands' maxima [n, strands].

    A floor for the row's `ranks[i]` largest elements: they are not below it. For rank 0 it is infinity, for
    one beyond the strands it is below any element but -inf.
    """
    count = maxima.shape[1]
    places = count - np.asarray(ranks)
    floors: Floats = np.sort(maxima, axis=1)[np.arange(len(maxima)), np.clip(places, 0, count - 1)]
    floors[places < 0] = np.finfo(np.float32).min
    floors[places == count] = np.inf
    return floors


class Found(NamedTuple):
    """Some elements of each row, one row's after the other's, and in a row ascending in their places."""

    rows: Ids
    """[found]"""
    places: Ids
    """[found]"""
    elements: Floats
    """[found]"""
    ends: Ids
    """[n] Where in these a row's end."""


def above(strands: Strands, floors: Floats) -> Found:
    """Each row's elements that are not below its floor. Only strands that have some are looked into."""
    of_row, strand = _true_in(strands.maxima >= floors[:, None])
    inside = in_strands(strands.elements)[strands.rows[of_row], strand]
    which = np.flatnonzero(inside >= floors[of_row, None])
    cell = which // STRAND
    rows = of_row[cell]
    places = strand[cell] * STRAND + which % STRAND
    return Found(rows, places, inside.ravel()[which], np.searchsorted(rows, np.arange(1, len(floors) + 1)))


def _true_in(mask: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """What `np.nonzero` finds in two dimensions, faster."""
    row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return row, column


def drawn(weights: Floats, fractions: Doubles) -> tuple[Ids, Doubles]:
    """Where each row's running sum first exceeds a fraction (below 1) of its sum: never at a zero.

    The inverse of the distribution function. With it, which fraction of the weight there was needed.
    """
    reached = np.cumsum(weights, axis=1, dtype=np.float64)
    targets = np.minimum(fractions * reached[:, -1], np.nextafter(reached[:, -1], 0))
    places = (reached > targets[:, None]).argmax(axis=1)
    here = np.arange(len(weights)), places
    needed = 1 - (reached[here] - targets) / weights[here]
    return places, np.clip(needed, 0, np.nextafter(1, 0))


def drawn_in_strands(strands: Strands, fractions: Doubles) -> Ids:
    """A place in each row, by the weights of all its elements."""
    strand, rest = drawn(strands.sums, fractions)
    inside = in_strands(strands.elements)[strands.rows, strand]
    place, _ = drawn(weigh(inside, strands.highest, strands.factors), rest)
    return strand * STRAND + place
