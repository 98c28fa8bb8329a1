"""The tokens that top_k, top_p and min_p leave.

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
from carpool.runtimes.selection import Strands, above, ranked

_NEGLIGIBLE = math.exp(-30)
"""Tokens with less than this part of the largest weight are lost in rounding, all of them together."""
_CAUTION = 0.5
"""The part of what top_p may leave out that the guess leaves out. Less makes more tokens to look at, more
makes more guesses wrong: at this about one of 20."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.intp]


class Candidates(NamedTuple):
    """What can be drawn in a row."""

    ids: Ids
    """[above the floor] Tokens, ascending."""
    weights: Floats
    """[above the floor] Theirs."""
    left: Floats
    """[left] The weights of those that are left, the largest first. Of equals the first tokens are left."""

    def draw(self, fraction: float) -> int:
        """A token, by a random number in [0, 1)."""
        reached = self.left.cumsum(dtype=np.float64)
        target = min(fraction * reached[-1], math.nextafter(reached[-1], 0))
        rank = reached.searchsorted(target, side="right")
        weight = self.left[rank]
        likelier = np.count_nonzero(self.left > weight)
        return int(self.ids[np.flatnonzero(self.weights == weight)[rank - likelier]])


def candidates(strands: Strands, params: Sequence[SamplingParams]) -> list[Candidates]:
    """The tokens of each row that temperature, top_k, top_p and min_p leave.

    They apply in this order, as in Hugging Face: top_p counts the mass of what top_k left. The elements of
    `strands` are processed logits, the factors 1 / temperature. Tokens whose mass is lost in rounding may be
    left out.
    """
    size = strands.elements.shape[1]
    ranks = np.array([each.top_k or size for each in params])
    nuclei = [i for i, each in enumerate(params) if _is_nucleus(each, size)]
    masses = strands.sums.sum(axis=1, dtype=np.float64)
    if nuclei:
        left_out = masses[nuclei] * [1 - params[i].top_p for i in nuclei]
        ranks[nuclei] = _nucleus_ranks(strands.of(nuclei), left_out)
    least = [_least_weight(each, size, mass) for each, mass in zip(params, masses.tolist(), strict=True)]
    lowest = (strands.highest + np.log(least) / strands.factors).astype(np.float32)
    floors = np.maximum(ranked(strands.maxima, ranks), lowest)
    found = _candidates(strands, params, masses, floors)
    short = [
        i
        for i in nuclei
        if floors[i] > lowest[i] and float(found[i].weights.sum()) < params[i].top_p * masses[i]
    ]
    if short:
        again = _candidates(strands.of(short), [params[i] for i in short], masses[short], lowest[short])
        for i, each in zip(short, again, strict=True):
            found[i] = each
    return found


def _candidates(
    strands: Strands, params: Sequence[SamplingParams], masses: Doubles, floors: Floats
) -> list[Candidates]:
    rows, ids, elements, ends = above(strands, floors)
    weights = np.exp((elements - strands.highest[rows]) * strands.factors[rows])
    found = []
    begin = 0
    size = strands.elements.shape[1]
    for each, mass, end in zip(params, masses.tolist(), ends.tolist(), strict=True):
        of_row = weights[begin:end]
        left = _left(of_row, each, mass if _is_nucleus(each, size) else None)
        found.append(Candidates(ids[begin:end], of_row, left))
        begin = end
    return found


def _left(weights: Floats, params: SamplingParams, mass: float | None) -> Floats:
    """The largest weights, those that are left; `mass` is that of all tokens, if top_p is to count it."""
    left: Floats = np.sort(weights)[::-1]
    if params.top_k:
        left = left[: params.top_k]
    if params.top_p < 1:
        reached = left.cumsum(dtype=np.float64)
        enough = params.top_p * (reached[-1] if mass is None else mass)
        left = left[: reached.searchsorted(enough) + 1]
    if params.min_p > 0:  # the largest weight is 1
        left = left[: np.count_nonzero(left >= params.min_p)]
    return left


def _is_nucleus(params: SamplingParams, size: int) -> bool:
    """Whether top_p counts the mass of all tokens."""
    return params.top_p < 1 and not 0 < params.top_k < size


def _least_weight(params: SamplingParams, size: int, mass: float) -> float:
    """Tokens with less are certainly not left; the halves make room for rounding."""
    least = _NEGLIGIBLE
    is_nucleus = _is_nucleus(params, size)
    if is_nucleus:  # all with less than this are together less than what is left out
        least = max(least, (1 - params.top_p) * mass / size / 2)
    if is_nucleus or params.top_p == 1:
        least = max(least, params.min_p / 2)
    return least


def _nucleus_ranks(strands: Strands, left_out: Doubles) -> Ids:
    """How many strands to look into for all but a mass `left_out` [n]: a guess.

    Those with the largest maxima. Of them as much is taken to be below the floor as of the others, strand by
    strand: as neighbours have little in common, the strands are like random samples.
    """
    order = np.argsort(strands.maxima, axis=1)  # ascending
    sums = strands.sums[np.arange(len(order))[:, None], order]
    number = np.arange(1, order.shape[1] + 1)  # of the strands that are not looked into
    are_few = np.cumsum(sums, axis=1) * (order.shape[1] / number) <= _CAUTION * left_out[:, None]
    ranks: Ids = order.shape[1] - np.count_nonzero(are_few, axis=1)
    return np.maximum(ranks, 1)
