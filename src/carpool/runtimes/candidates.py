"""Draws among the tokens that top_k, top_p and min_p leave.

In the order of likelihood they are a beginning, so what is needed is a floor that none of them is below. For
top_k it is the k-th largest of the strands' maxima, for min_p it is known. For top_p it is guessed from the
strands' sums; where the guess was too high, the row is looked at again with a floor that is certain.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.decoder import SamplingParams
from carpool.runtimes.half import Floats
from carpool.runtimes.selection import Doubles, Ids, Strands, above, places_at, ranked, weigh_found

_DEEPEST = 30
_NEGLIGIBLE = math.exp(-_DEEPEST)
"""Tokens with less than this part of the largest weight are lost in rounding, all of them together."""
_CAUTION = 0.3
"""The part of what top_p may leave out that the guess leaves out. Less makes more tokens to look at, more
makes more guesses wrong: at this about one of 40."""
_LEVELS = 2 * _DEEPEST
"""Depths below the largest weight's logarithm that are told apart when guessing."""
_FEW = 256
"""Candidates of a row; rows with more are gone through with those that have as many."""


class Limits(NamedTuple):
    """What is asked for, for some rows."""

    top_k: Ids
    """[n]; the row's size where it is off."""
    top_p: Doubles
    """[n]"""
    min_p: Doubles
    """[n]"""
    count_all: NDArray[np.bool_]
    """[n] Whether top_p counts the mass of all tokens, not of those that top_k leaves."""

    @classmethod
    def of_params(cls, params: Sequence[SamplingParams], size: int) -> "Limits":
        """Of rows of some size."""
        top_k = np.array([each.top_k or size for each in params])
        top_p = np.array([each.top_p for each in params])
        min_p = np.array([each.min_p for each in params])
        return cls(top_k, top_p, min_p, (top_p < 1) & (top_k >= size))

    def of(self, which: Ids) -> "Limits":
        """Some of the rows."""
        return Limits(self.top_k[which], self.top_p[which], self.min_p[which], self.count_all[which])


def drawn_within(strands: Strands, params: Sequence[SamplingParams], fractions: Doubles) -> Ids:
    """A token of each row among those that top_k, top_p and min_p leave, by random numbers in [0, 1).

    They apply in this order, as in Hugging Face: top_p counts the mass of what top_k left. The elements of
    `strands` are processed logits, the factors 1 / temperature. Of equals the first tokens are left. Tokens
    whose mass is lost in rounding may be left out.
    """
    size = strands.elements.shape[1]
    limits = Limits.of_params(params, size)
    masses = strands.masses
    lowest = _lowest(strands, limits, masses)
    floors = lowest.copy()
    limited = np.flatnonzero(limits.top_k < size)
    if len(limited):
        floors[limited] = np.maximum(lowest[limited], ranked(strands.maxima[limited], limits.top_k[limited]))
    nuclei = np.flatnonzero(limits.count_all)
    if len(nuclei):
        guesses = _nucleus_floors(strands.of(nuclei), (1 - limits.top_p[nuclei]) * masses[nuclei])
        floors[nuclei] = np.maximum(lowest[nuclei], guesses)
    token_ids, are_short = _drawn(strands, limits, masses, fractions, floors)
    again = np.flatnonzero(are_short & (floors > lowest))
    if len(again):
        token_ids[again], _ = _drawn(
            strands.of(again), limits.of(again), masses[again], fractions[again], lowest[again]
        )
    return token_ids


def _lowest(strands: Strands, limits: Limits, masses: Doubles) -> Floats:
    """Floors that nothing that is left is below; the halves make room for rounding."""
    least = np.full(len(masses), _NEGLIGIBLE)
    # All with less than this are together less than what is left out.
    of_nucleus = (1 - limits.top_p) * masses / strands.elements.shape[1] / 2
    np.maximum(least, of_nucleus, out=least, where=limits.count_all)
    np.maximum(least, limits.min_p / 2, out=least, where=limits.count_all | (limits.top_p == 1))
    lowest: Floats = (strands.highest + np.log(least) / strands.factors).astype(np.float32)
    return lowest


def _nucleus_floors(strands: Strands, left_out: Doubles) -> Floats:
    """What all but a mass `left_out` [n] is not below: a guess.

    Of the strands with maxima above a floor as much is taken to be below it as of the others, strand by
    strand: as neighbours have little in common, the strands are like random samples.
    """
    count, width = strands.maxima.shape
    depths = (strands.highest[:, None] - strands.maxima) * strands.factors[:, None]
    levels = (np.minimum(depths, _DEEPEST - 1e-3) * (_LEVELS / _DEEPEST)).astype(np.intp)
    levels += np.arange(0, count * _LEVELS, _LEVELS)[:, None]
    shape = count, _LEVELS
    numbers = np.bincount(levels.ravel(), minlength=count * _LEVELS).reshape(shape)
    sums = np.bincount(levels.ravel(), strands.sums.ravel(), count * _LEVELS).reshape(shape)
    # From each level down.
    numbers, sums = (np.cumsum(each[:, ::-1], axis=1)[:, ::-1] for each in (numbers, sums))
    are_few = sums * width <= _CAUTION * left_out[:, None] * numbers
    level = np.where(are_few.any(axis=1), are_few.argmax(axis=1), _LEVELS)
    floors: Floats = strands.highest - (level * (_DEEPEST / _LEVELS)).astype(np.float32) / strands.factors
    return floors


def _drawn(
    strands: Strands, limits: Limits, masses: Doubles, fractions: Doubles, floors: Floats
) -> tuple[Ids, NDArray[np.bool_]]:
    """Tokens of rows, and whether what is above the floor was not enough for top_p."""
    found = above(strands, floors)
    weights = weigh_found(strands, found)
    begins = np.concatenate([[0], found.ends[:-1]])
    counts = found.ends - begins
    token_ids = np.zeros(len(floors), np.intp)
    are_short = np.zeros(len(floors), np.bool_)
    widths = _FEW * 4 ** np.ceil(np.log2(np.maximum(counts, _FEW) / _FEW) / 2).astype(np.intp)
    for width in np.unique(widths).tolist():
        are_here = widths == width
        which = np.flatnonzero(are_here)
        are_weights = np.arange(counts[which].max()) < counts[which, None]
        of_rows = np.zeros(are_weights.shape, np.float32)
        of_rows[are_weights] = weights[are_here[found.rows]]
        places, are_short[which] = _drawn_places(of_rows, limits.of(which), masses[which], fractions[which])
        token_ids[which] = found.ids[begins[which] + places]
    return token_ids, are_short


def _drawn_places(
    weights: Floats, limits: Limits, masses: Doubles, fractions: Doubles
) -> tuple[Ids, NDArray[np.bool_]]:
    """The same, as places in rows of weights, the largest 1, with zeros at their ends."""
    each = np.arange(len(weights))
    ordered = np.sort(weights, axis=1)[:, ::-1]
    ordered *= np.arange(ordered.shape[1]) < limits.top_k[:, None]
    reached = np.cumsum(ordered, axis=1, dtype=np.float64)
    enough = limits.top_p * np.where(limits.count_all, masses, reached[:, -1])
    numbers = np.count_nonzero(reached < enough[:, None], axis=1) + 1
    numbers[limits.top_p == 1] = ordered.shape[1]
    numbers = np.minimum(numbers, np.count_nonzero(ordered >= limits.min_p[:, None], axis=1))
    ranks, _ = places_at(reached, reached[each, numbers - 1], fractions)
    drawn = ordered[each, ranks][:, None]
    of_equals = ranks - np.count_nonzero(ordered > drawn, axis=1)
    places = (np.cumsum(weights == drawn, axis=1) > of_equals[:, None]).argmax(axis=1)
    return places, limits.count_all & (reached[:, -1] < enough)
