"""Finding the few that matter in long rows of numbers, many rows at once, without sorting any.

A row is looked at in strands of neighbours, whose statistics tell which of them are worth looking into. What
is found in a row does not depend on the other rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.half import Floats, Logits, minus_infinity, numbers

STRAND = 128
"""Elements of a strand."""
LOWEST = np.finfo(np.float32).min

Doubles = NDArray[np.float64]
Ids = NDArray[np.intp]
_Any = TypeVar("_Any", bound=np.generic)

StrandStatistics = Callable[[Logits, Floats], tuple[Floats, Floats]]
"""From rows [n, whole strands] and factors [n, k]: of each strand the largest element, as float32
[n, strands], and for each factor the sum of the weights exp((element - the row's largest) * factor), as
float32 [n, k, strands]. A row's do not depend on the other rows. The largest of nothing but -inf may be
`LOWEST`. Where there is a NaN or infinity, not all of them are finite. The next call may overwrite the
results."""


def strand_statistics(rows: Logits, factors: Floats) -> tuple[Floats, Floats]:
    """See `StrandStatistics`."""
    strands = in_strands(numbers(rows))
    maxima = np.maximum(strands.max(axis=2), LOWEST)
    differences = strands - maxima.max(axis=1)[:, None, None]
    return maxima, np.exp(differences[:, None] * factors[:, :, None, None]).sum(axis=3)


def whole_strands(rows: Logits) -> Logits:
    """The rows with -inf at their ends up to a multiple of a strand's length."""
    missing = -rows.shape[1] % STRAND
    if missing == 0:
        return rows
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=minus_infinity(rows))  # type: ignore[return-value]


def in_strands(rows: NDArray[_Any]) -> NDArray[_Any]:
    """The same as [n, strands, elements]; a view."""
    return rows.reshape(len(rows), rows.shape[1] // STRAND, STRAND)


class Apart(NamedTuple):
    """Tokens whose elements are beside their rows and no longer in them."""

    ids: Ids
    """[n, whole strands]"""
    elements: Floats
    """[n, whole strands]; -inf where there is none."""
    are_all: NDArray[np.bool_]
    """[n] Whether nothing else is left of the row."""

    def of(self, which: Sequence[int] | Ids) -> "Apart":
        """Those of some of the rows."""
        return Apart(self.ids[which], self.elements[which], self.are_all[which])


@dataclass(frozen=True, slots=True)
class Strands:
    """Some rows and the statistics of their strands; those of what is apart follow those in the rows."""

    elements: Logits
    """[all, size], these rows among others."""
    rows: Ids
    """[n] Which these are; of rows of which nothing is left, any."""
    apart: Apart | None
    factors: Floats
    """[n]"""
    highest: Floats
    """[n] The largest element of each row."""
    maxima: Floats
    """[n, strands]"""
    sums: Floats
    """[n, strands] Of weights exp((element - the row's largest) * factor)."""
    reached: Doubles
    """[n, strands] Running sums of the sums, the same in any company: strands of zeros do not change them."""

    @property
    def masses(self) -> Doubles:
        """[n] The weight of each row."""
        return self.reached[:, -1]

    def of(self, which: Sequence[int] | Ids) -> "Strands":
        """Some of the rows, ascending."""
        if len(which) == len(self.rows):
            return self
        return Strands(
            self.elements,
            self.rows[which],
            self.apart and self.apart.of(which),
            self.factors[which],
            self.highest[which],
            self.maxima[which],
            self.sums[which],
            self.reached[which],
        )

    def inside(self, of_row: Ids, strand: Ids) -> Floats:
        """The elements of some strands of some rows [looked into, elements]."""
        width = self.elements.shape[1] // STRAND
        all_strands = self.elements.reshape(-1, STRAND)
        if self.apart is None:
            return numbers(all_strands.take(self.rows[of_row] * width + strand, axis=0))
        is_beside = strand >= width
        inside = numbers(all_strands.take(self.rows[of_row] * width + strand * ~is_beside, axis=0))
        inside[is_beside] = in_strands(self.apart.elements)[of_row[is_beside], strand[is_beside] - width]
        return inside

    def ids(self, of_row: Ids, places: Ids) -> Ids:
        """The tokens at some places of some rows."""
        if self.apart is None:
            return places
        beyond = places - self.elements.shape[1]
        return np.where(beyond < 0, places, self.apart.ids[of_row, np.maximum(beyond, 0)])


def look(
    rows: Logits, factors: Floats, statistics: StrandStatistics, apart: Apart | None = None
) -> list[Strands]:
    """The strands of rows [n, whole strands], once for each of some factors [n, k].

    They hold what `statistics` returns and, but where few are left, the rows, not copies.
    """
    which = np.arange(len(rows))
    if apart is None:
        maxima, sums = statistics(rows, factors)
    else:
        left = np.flatnonzero(~apart.are_all)
        looked_at = left if len(left) < len(rows) / 2 else which  # to copy more takes longer
        if 0 < len(looked_at) < len(rows):
            rows = rows[looked_at]
            which = np.cumsum(~apart.are_all) - 1
        maxima, sums = _with_those_apart(rows, factors, statistics, apart, looked_at)
    highest = maxima.max(axis=1)
    reached = np.cumsum(sums, axis=2, dtype=np.float64)
    return [
        Strands(rows, which, apart, factors[:, i], highest, maxima, sums[:, i], reached[:, i])
        for i in range(factors.shape[1])
    ]


def _with_those_apart(
    rows: Logits, factors: Floats, statistics: StrandStatistics, apart: Apart, looked_at: Ids
) -> tuple[Floats, Floats]:
    """The statistics of the rows, which are those `looked_at` of all, followed by those of what is apart."""
    width = rows.shape[1] // STRAND
    of_apart = strand_statistics(apart.elements, factors)
    maxima = np.full((len(factors), width + of_apart[0].shape[1]), -np.inf, np.float32)
    sums = np.zeros((*factors.shape, maxima.shape[1]), np.float32)
    maxima[:, width:], sums[..., width:] = of_apart
    if len(looked_at):
        maxima[looked_at, :width], sums[looked_at, :, :width] = statistics(rows, factors[looked_at])
        # Nothing is left of these, whatever is still in their rows.
        maxima[apart.are_all, :width], sums[apart.are_all, :, :width] = -np.inf, 0
    highest = maxima.max(axis=1)
    for part in (slice(None, width), slice(width, None)):
        sums[..., part] *= np.exp((maxima[:, part].max(axis=1) - highest)[:, None] * factors)[..., None]
    return maxima, sums


def weigh(elements: Floats, highest: Floats, factors: Floats) -> Floats:
    """The weights of elements [n, any], of rows whose largest are `highest` [n]."""
    weights: Floats = elements - highest[:, None]
    weights *= factors[:, None]
    return np.exp(weights, out=weights)


def ranked(maxima: Floats, ranks: Sequence[int] | Ids) -> Floats:
    """The `ranks[i]`-th largest of row i's strands' maxima [n, strands].

    A floor for the row's `ranks[i]` largest elements: they are not below it. For rank 0 it is infinity, for
    one beyond the strands it is above no element but -inf.
    """
    count = maxima.shape[1]
    places = count - np.asarray(ranks)
    floors: Floats = np.sort(maxima, axis=1)[np.arange(len(maxima)), np.clip(places, 0, count - 1)]
    floors[places < 0] = LOWEST
    floors[places == count] = np.inf
    return floors


class Found(NamedTuple):
    """Some elements of each row, one row's after the other's, and in a row ascending in their tokens."""

    rows: Ids
    """[found]"""
    ids: Ids
    """[found] Tokens."""
    elements: Floats
    """[found]"""
    ends: Ids
    """[n] Where in these a row's end."""


def above(strands: Strands, floors: Floats) -> Found:
    """Each row's elements that are not below its floor. Only strands that have some are looked into.

    Never -inf: where a row has nothing left, there are still elements in memory.
    """
    floors = np.maximum(floors, LOWEST)
    of_row, strand = _true_in(strands.maxima >= floors[:, None])
    inside = strands.inside(of_row, strand)
    which = np.flatnonzero(inside >= floors[of_row, None])
    cell = which // STRAND
    rows = of_row[cell]
    ids = strands.ids(rows, strand[cell] * STRAND + which % STRAND)
    elements = inside.ravel()[which]
    if strands.apart is not None:
        order = np.lexsort((ids, rows))
        ids, elements = ids[order], elements[order]
    return Found(rows, ids, elements, np.searchsorted(rows, np.arange(1, len(floors) + 1)))


def weigh_found(strands: Strands, found: Found) -> Floats:
    """The weights of what `above` found in these rows."""
    weights: Floats = np.exp((found.elements - strands.highest[found.rows]) * strands.factors[found.rows])
    return weights


def _true_in(mask: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """What `np.nonzero` finds in two dimensions, faster."""
    row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return row, column


def places_at(reached: Doubles, totals: Doubles, fractions: Doubles) -> tuple[Ids, Doubles]:
    """Where each row's running sum first exceeds a fraction (below 1) of a total, and that fraction of it."""
    targets = np.minimum(fractions * totals, np.nextafter(totals, 0))
    return (reached > targets[:, None]).argmax(axis=1), targets


def drawn(weights: Floats, reached: Doubles, fractions: Doubles) -> tuple[Ids, Doubles]:
    """Where each row's running sum first exceeds a fraction (below 1) of its sum: never at a zero.

    The inverse of the distribution function. With it, which fraction of the weight there was needed.
    """
    places, targets = places_at(reached, reached[:, -1], fractions)
    here = np.arange(len(weights)), places
    needed = 1 - (reached[here] - targets) / weights[here]
    return places, np.clip(needed, 0, np.nextafter(1, 0))


def drawn_in_strands(strands: Strands, fractions: Doubles) -> tuple[Ids, Floats]:
    """A token of each row, by the weights of all its elements, and its element."""
    strand, rest = drawn(strands.sums, strands.reached, fractions)
    each = np.arange(len(strand))
    inside = strands.inside(each, strand)
    weights = weigh(inside, strands.highest, strands.factors)
    place, _ = drawn(weights, np.cumsum(weights, axis=1, dtype=np.float64), rest)
    return strands.ids(each, strand * STRAND + place), inside[each, place]
