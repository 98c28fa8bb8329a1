"""bf16 for tests."""

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.half import Halves


def halved(wide: NDArray[np.float32]) -> Halves:
    """The bits of bf16 numbers near these, towards zero."""
    return (wide.view(np.uint32) >> 16).astype(np.uint16)
