"""Exact nearest-neighbour search over the vectors of one partition."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]


def normalised(vector: Vector) -> Vector:
    """The vector at unit length, float32 [d]. Raises `ValueError` if it is NaN, infinite or zero."""
    vector = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(vector.astype(np.float64))) if vector.ndim == 1 else 0.0
    if not 0 < length < np.inf:
        raise ValueError("not a vector with a direction")
    return vector / np.float32(length)


class VectorIndex:
    """Unit vectors of one length under 32-byte keys: one float32 matrix [capacity, d] that doubles when full.

    One thread adds and removes. `search` may run in another at the same time: it then may miss or misjudge
    what moves meanwhile, so its findings count only after `cosine` has confirmed them in the owning thread.
    """

    def __init__(self, dimensions: int) -> None:
        self._matrix: Vectors = np.zeros((1, dimensions), dtype=np.float32)
        self._keys: list[bytes] = []
        self._rows: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes, vector: Vector) -> None:
        """Store a unit vector, replacing the key's former one."""
        self.remove(key)
        row = len(self._keys)
        if row == len(self._matrix):
            self._matrix = np.concatenate((self._matrix, np.zeros_like(self._matrix)))
        self._matrix[row] = vector
        self._keys.append(key)
        self._rows[key] = row

    def remove(self, key: bytes) -> None:
        """Forget a key, known or not. The last row takes its place."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = self._keys.pop()
        if last != key:
            self._matrix[row] = self._matrix[len(self._keys)]
            self._keys[row] = last
            self._rows[last] = row

    def cosine(self, key: bytes, vector: Vector) -> float | None:
        """The cosine of a unit vector with the key's vector; None if the key is not known."""
        row = self._rows.get(key)
        return None if row is None else float(self._matrix[row] @ vector)

    def search(self, vectors: Vectors, floor: float, limit: int) -> list[list[tuple[bytes, float]]]:
        """For each unit vector of [q, d], the `limit` nearest keys with a cosine above `floor`, in order."""
        keys, matrix = self._keys, self._matrix
        scores = vectors @ matrix[: len(keys)].T
        found = []
        for row_scores in scores:
            rows = np.flatnonzero(row_scores > floor)
            if len(rows) > limit:
                rows = rows[np.argpartition(row_scores[rows], -limit)[-limit:]]
            best = sorted(((float(row_scores[row]), int(row)) for row in rows), reverse=True)
            # A slice, as a concurrent removal may have left no key in that row.
            found.append([(key, score) for score, row in best for key in keys[row : row + 1]])
        return found

    @property
    def work(self) -> int:
        """Multiplications of one search with one vector."""
        return len(self._keys) * int(self._matrix.shape[1])
