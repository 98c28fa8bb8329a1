"""Draws for top_p that mostly do without finding the nucleus.

A token drawn from all that there are and kept if it is in the nucleus is drawn by the nucleus's proportions
(rejection sampling, von Neumann 1951). Whether it is in the nucleus depends on how much is likelier than the
token alone, and that is little to look at, as likely tokens are drawn most.
"""

import numpy as np
from numpy.typing import NDArray

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

LEAST_TOP_P = 0.5
"""Below it too many draws would be rejected."""


def draw_and_test(strands: Strands, top_p: Doubles, fractions: Doubles) -> tuple[Ids, NDArray[np.bool_]]:
    """A token of each row by random numbers in [0, 1), and whether it is in the row's nucleus.

    The nucleus are the likeliest tokens, of equals the first, up to the one with which they have the part
    `top_p` of all mass. If the token is not in it, another is to be drawn from the nucleus, by another
    random number.
    """
    masses = strands.masses
    enough = top_p * masses
    token_ids, elements = drawn_in_strands(strands, fractions)
    # Likelier tokens are all in strands whose largest is not below the token. The mass of those strands
    # bounds theirs from above; less 128 tokens of the token's own weight for each of them, from below.
    may_be_above = strands.maxima >= elements[:, None]
    likelier_at_most = np.einsum("ij,ij->i", strands.sums, may_be_above, dtype=np.float64)
    are_inside: NDArray[np.bool_] = likelier_at_most < enough
    weights = weigh(elements[:, None], strands.highest, strands.factors)[:, 0]
    likelier_at_least = likelier_at_most - weights * STRAND * np.count_nonzero(may_be_above, axis=1)
    # If all tokens were as light, they would be less than what is left out. Twice: room for rounding.
    too_light = weights * strands.elements.shape[1] * 2 < masses - enough
    unknown = np.flatnonzero(~are_inside & ~too_light & (likelier_at_least <= enough))
    if len(unknown):
        before = _mass_before(strands.of(unknown), token_ids[unknown], elements[unknown])
        are_inside[unknown] = before < enough[unknown]
    return token_ids, are_inside


def _mass_before(strands: Strands, token_ids: Ids, elements: NDArray[np.float32]) -> Doubles:
    """The mass of what each row has before a token in the order of likelihood."""
    found = above(strands, elements)
    is_before = (found.elements > elements[found.rows]) | (found.ids < token_ids[found.rows])
    weights = weigh_found(strands, found) * is_before
    return np.bincount(found.rows, weights, len(token_ids)).astype(np.float64, copy=False)
