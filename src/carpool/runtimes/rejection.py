"""Draws for top_p or top_k that mostly do without finding the tokens these leave.

A token drawn from all that there are and kept if it is among those left is drawn by their proportions
(rejection sampling, von Neumann 1951). Whether it is among them depends on what is likelier than the token
alone, and that is little to look at, as likely tokens are drawn most.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.decoder import SamplingParams
from carpool.runtimes.selection import (
    STRAND,
    Doubles,
    Ids,
    Strands,
    above,
    drawn_in_strands,
    weigh,
    weigh_found,
)

_LEAST_TOP_P = 0.5
"""Below it too many draws would be rejected."""
_LEAST_TOP_K = 20
"""The same, for language models' distributions."""


def is_worth_it(params: SamplingParams) -> bool:
    """Whether there is either top_p or top_k, nothing else, and it leaves enough."""
    if params.min_p or (params.top_k and params.top_p < 1):
        return False
    return params.top_k >= _LEAST_TOP_K if params.top_k else _LEAST_TOP_P <= params.top_p < 1


def draw_and_test(
    strands: Strands, params: Sequence[SamplingParams], fractions: Doubles
) -> tuple[Ids, NDArray[np.bool_]]:
    """A token of each row by random numbers in [0, 1), and whether its top_p or top_k leaves it.

    The likeliest tokens are left, of equals the first: by top_p up to the one with which they have this part
    of all mass, by top_k as many. If the token is not left, another is to be drawn from those that are, by
    another random number.
    """
    masses = strands.masses
    top_p = np.array([each.top_p for each in params])
    enough = np.where(top_p < 1, top_p * masses, np.inf)
    top_k = np.array([each.top_k or strands.elements.shape[1] for each in params])
    token_ids, elements = drawn_in_strands(strands, fractions)
    # Likelier tokens are all in strands whose largest is not below the token. The mass and the size of those
    # strands bound theirs from above; less a strand of the token's own weight for each of them, from below.
    may_be_above = strands.maxima >= elements[:, None]
    num_strands = np.count_nonzero(may_be_above, axis=1)
    mass_at_most = np.einsum("ij,ij->i", strands.sums, may_be_above, dtype=np.float64)
    are_left: NDArray[np.bool_] = (mass_at_most < enough) & (num_strands * STRAND <= top_k)
    weights = weigh(elements[:, None], strands.highest, strands.factors)[:, 0]
    mass_at_least = mass_at_most - weights * STRAND * num_strands
    # If all tokens were as light, they would be less than what is left out. Twice: room for rounding.
    too_light = weights * strands.elements.shape[1] * 2 < masses - enough
    # A strand with a larger maximum has a likelier token; one with an equal maximum may have none.
    too_many = num_strands > top_k
    doubtful = np.flatnonzero(too_many)
    if len(doubtful):
        are_above = strands.maxima[doubtful] > elements[doubtful, None]
        too_many[doubtful] = np.count_nonzero(are_above, axis=1) >= top_k[doubtful]
    unknown = np.flatnonzero(~are_left & ~too_light & ~too_many & (mass_at_least <= enough))
    if len(unknown):
        mass, count = _before(strands.of(unknown), token_ids[unknown], elements[unknown])
        are_left[unknown] = (mass < enough[unknown]) & (count < top_k[unknown])
    return token_ids, are_left


def _before(strands: Strands, token_ids: Ids, elements: NDArray[np.float32]) -> tuple[Doubles, Ids]:
    """The mass and the number of the tokens that each row has before one in the order of likelihood."""
    found = above(strands, elements)
    is_before = (found.elements > elements[found.rows]) | (found.ids < token_ids[found.rows])
    rows = found.rows[is_before]
    mass = np.bincount(rows, weigh_found(strands, found)[is_before], len(token_ids))
    return mass.astype(np.float64, copy=False), np.bincount(rows, minlength=len(token_ids))
