"""What rerankers and embedding models say of documents."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scores:
    """How well each document answers the query, in the order of the documents."""

    scores: NDArray[np.float32]
    """[documents]; higher is better."""
    num_tokens: int
    """Tokens computed, special tokens included."""
