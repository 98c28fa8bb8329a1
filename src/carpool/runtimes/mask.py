"""What a grammar says of the next token, in the form that draws use."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FEW = 4096
"""Tokens that may come, if they are no more, are listed themselves; otherwise the others are."""
_KEPT = 64
"""How many masks: a schema's lists take some kilobytes, the longest of a large vocabulary half a megabyte."""


class Mask(NamedTuple):
    """Which tokens may come next, by the list of them or of all others."""

    ids: NDArray[np.int32]
    """Ascending, not to be written to. All others: up to a multiple of 32, so some beyond the vocabulary."""
    lists_allowed: bool
    """Whether these are the tokens that may come, not the others."""


@lru_cache(_KEPT)
def mask_of(bits: bytes) -> Mask:
    """The mask from a bit for each token, little-endian, in whole words of 32.

    Masks recur, whatever the schema: within its strings nearly everything may come. So the latest are kept.
    """
    words = np.frombuffer(bits, np.uint32)
    lists_allowed = int(np.bitwise_count(words).sum()) <= FEW
    ids = _set_bits(words if lists_allowed else ~words)
    ids.flags.writeable = False
    return Mask(ids, lists_allowed)


def _set_bits(words: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The places of the ones, in order. Words of zeros, most as a rule, cost nothing."""
    places = np.flatnonzero(words != 0)  # of booleans they are found much faster
    ones = np.flatnonzero(np.unpackbits(words[places].view(np.uint8), bitorder="little").view(np.bool_))
    found: NDArray[np.intp] = places[ones >> 5] * 32 + (ones & 31)
    return found.astype(np.int32)
