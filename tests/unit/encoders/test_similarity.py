"""The similarities against their definitions."""

import numpy as np
import pytest

from carpool.encoders.similarity import Similarity

VECTOR = np.array([3, 4], np.float32)
OTHERS = np.array([[3, 4], [6, 8], [-3, -4], [4, -3], [0, 0]], np.float32)


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        (Similarity.COSINE, [1, 1, -1, 0, 0]),
        (Similarity.DOT, [25, 50, -25, 0, 0]),
        (Similarity.EUCLIDEAN, [0, -5, -10, -(50**0.5), -5]),
        (Similarity.MANHATTAN, [0, -7, -14, -8, -7]),
    ],
)
def test_definitions(similarity: Similarity, expected: list[float]) -> None:
    values = similarity.of(VECTOR, OTHERS)
    assert values.dtype == np.float32
    assert values == pytest.approx(np.array(expected), abs=1e-6)
