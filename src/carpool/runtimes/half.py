"""Logits in float32 or in bf16. NumPy has no bf16, so those are held as their bits."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
"""Bits of bf16, which are the upper half of a float32's."""
Logits = Floats | Halves

_INFINITY = 0x7F80
"""Its bits in bf16; those of a NaN are larger: without a sign than these, with one than minus infinity's."""
_MINUS_INFINITY = 0xFF80
_NAN = 0x7FC0


def numbers(logits: Logits) -> Floats:
    """Their values, exactly; float32 is not copied."""
    if logits.dtype == np.float32:
        return logits.view(np.float32)
    bits = logits.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def minus_infinity(logits: Logits) -> float:
    """What is put into such logits to take a token out."""
    return -np.inf if logits.dtype == np.float32 else _MINUS_INFINITY


def not_a_number(logits: Logits) -> float:
    """What is put into such logits to make a row unusable."""
    return np.nan if logits.dtype == np.float32 else _NAN


def likeliest(logits: Logits, *, nan_fills_rows: bool) -> list[int] | None:
    """The first of the largest of each row [rows, size]; None if it takes a closer look.

    Read as integers, the bits of numbers above zero have the numbers' order and come after all others. So one
    pass over half the bytes finds the largest, and a second one the NaNs with a sign, which the first takes
    for small numbers; `nan_fills_rows`: none is needed, as a row with a NaN has nothing else. That does not
    settle it where a row has nothing above zero. It takes a closer look too where the largest is infinite, or
    there is a NaN.
    """
    if logits.dtype == np.float32:
        places = logits.argmax(axis=1)  # the first NaN if there is one
        settled = np.isfinite(logits[np.arange(len(logits)), places])
    else:
        bits = logits.view(np.int16)
        places = bits.argmax(axis=1)
        largest = bits[np.arange(len(bits)), places]
        settled = (largest > 0) & (largest < _INFINITY)
        if not nan_fills_rows:
            settled &= logits.max(axis=1) <= _MINUS_INFINITY
    return places.tolist() if settled.all() else None
