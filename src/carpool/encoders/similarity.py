"""How near two embeddings are, by the functions that sentence-transformers names."""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Similarity(StrEnum):
    """What a model's vectors were trained to be compared with; more is nearer."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    """The distance's negative, here and below."""
    MANHATTAN = "manhattan"

    def of(self, vector: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
        """The similarity of a vector [dimensions] to each of others [n, dimensions]; returns f32 [n]."""
        match self:
            case Similarity.DOT:
                values = others @ vector
            case Similarity.EUCLIDEAN:
                values = -np.linalg.norm(others - vector, axis=1)
            case Similarity.MANHATTAN:
                values = -np.abs(others - vector).sum(axis=1)
            case Similarity.COSINE:
                lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(vector)
                values = (others @ vector) / np.maximum(lengths, np.finfo(np.float32).tiny)
        return np.asarray(values, np.float32)
