"""What the client gives for an `Embed` and a `Score`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of one `Embed`."""

    vectors: NDArray[np.float32]
    """[inputs, dimensions], read-only."""
    tokens: list[int]
    """Token count of each input."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The answer to one `Score`."""

    scores: NDArray[np.float32]
    """[documents], in their order, read-only; higher is better."""
    tokens: int
    """Tokens computed, for query and documents together."""
