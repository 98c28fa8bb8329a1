"""Exact nearest-neighbour search over the vectors of one partition."""

from typing import Any, TypeVar

import numkong
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]
_Array = TypeVar("_Array", bound=NDArray[Any])

_TOGETHER = 8
"""Queries above which one float32 product by BLAS, which reads the matrix once for all, is faster."""
_FEW = 256
"""Rows up to which reading them in float32 takes no longer than making a code of the query. Not by BLAS: it
would do even this in several threads, and wait for all of them to get a core."""
_ROUNDING = 1e-5
"""More than what float32 arithmetic can be off by, for unit vectors."""


def normalised(vector: Vector) -> Vector:
    """The vector at unit length, float32 [d]. Raises `ValueError` if it is NaN, infinite or zero."""
    vector = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(vector.astype(np.float64))) if vector.ndim == 1 else 0.0
    if not 0 < length < np.inf:
        raise ValueError("not a vector with a direction")
    return vector / np.float32(length)


def stored_bytes(dimensions: int) -> int:
    """What a vector of this length takes in an index: float32, and its int8 code with a scale."""
    return 5 * dimensions + 4


class VectorIndex:
    """Unit vectors of one length under 32-byte keys, in arrays that double when full.

    Searching is bound by the bytes it reads, so it reads int8 codes (symmetric, one scale a row; the products
    are exact integers) and compares in float32 only the rows that can be among the nearest: for a row a with
    code â and a query q with code q̂, |q·a - q̂·â| ≤ ‖a - â‖ + ‖q - q̂‖ (1 + ‖a - â‖). The outcome is the same
    as of comparing all rows in float32.

    One thread adds and removes. `search` may run in another at the same time: it then may miss or misjudge
    what moves meanwhile, so its findings count only after `cosine` has confirmed them in the owning thread.
    """

    def __init__(self, dimensions: int) -> None:
        self._matrix: Vectors = np.zeros((1, dimensions), dtype=np.float32)
        self._codes: NDArray[np.int8] = np.zeros((1, dimensions), dtype=np.int8)
        self._scales: Vector = np.zeros(1, dtype=np.float32)
        self._error = 0.0
        """The largest ‖a - â‖ so far."""
        self._keys: list[bytes] = []
        self._rows: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes, vector: Vector) -> None:
        """Store a unit vector, replacing the key's former one."""
        self.remove(key)
        row = len(self._keys)
        if row == len(self._matrix):
            self._matrix = _doubled(self._matrix)
            self._codes = _doubled(self._codes)
            self._scales = _doubled(self._scales)
        self._matrix[row] = vector
        codes, scales, errors = _quantised(vector[None, :])
        self._codes[row], self._scales[row] = codes[0], scales[0]
        self._error = max(self._error, float(errors[0]))
        self._keys.append(key)
        self._rows[key] = row

    def remove(self, key: bytes) -> None:
        """Forget a key, known or not. The last row takes its place."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        last = self._keys.pop()
        if last != key:
            for array in (self._matrix, self._codes, self._scales):
                array[row] = array[len(self._keys)]
            self._keys[row] = last
            self._rows[last] = row

    def vector(self, key: bytes) -> Vector | None:
        """The key's vector; None if the key is not known."""
        row = self._rows.get(key)
        return None if row is None else self._matrix[row].copy()

    def cosine(self, key: bytes, vector: Vector) -> float | None:
        """The cosine of a unit vector with the key's vector; None if the key is not known."""
        row = self._rows.get(key)
        return None if row is None else float(self._matrix[row] @ vector)

    def search(self, vectors: Vectors, floor: float, limit: int) -> list[list[tuple[bytes, float]]]:
        """For each unit vector of [q, d], the `limit` nearest keys with a cosine above `floor`, in order."""
        keys, count = self._keys, len(self._keys)
        matrix = self._matrix  # taken after the count, so that it has all of the rows
        if not count:
            return [[] for _ in vectors]
        found = []
        for vector, scores, error in zip(vectors, *self._estimates(vectors, count), strict=True):
            rows = np.flatnonzero(scores > floor - error)
            if len(rows) > limit:
                # A row is out if `limit` others are nearer even where the estimates are wrong against them.
                least = np.partition(scores[rows], -limit)[-limit]
                rows = rows[scores[rows] >= least - 2 * error]
            cosines = matrix[rows] @ vector
            best = sorted(((float(c), int(row)) for c, row in zip(cosines, rows, strict=True)), reverse=True)
            # A slice, as a concurrent removal may have left no key in that row.
            found.append([(key, c) for c, row in best[:limit] if c > floor for key in keys[row : row + 1]])
        return found

    @property
    def work(self) -> int:
        """Multiplications of one search with one vector."""
        return len(self._keys) * int(self._matrix.shape[1])

    def _estimates(self, vectors: Vectors, rows: int) -> tuple[Vectors, Vector]:
        """The cosines, float32 [q, rows], and how much those of each query can be off at most, [q]."""
        if len(vectors) > _TOGETHER or rows <= _FEW:
            matrix = self._matrix[:rows]
            cosines = _products(vectors, matrix) if rows <= _FEW else vectors @ matrix.T
            return cosines, np.full(len(vectors), _ROUNDING, dtype=np.float32)
        codes, scales, errors = _quantised(vectors)
        scores = _products(codes, self._codes[:rows])
        scores *= self._scales[:rows]
        scores *= scales[:, None]
        return scores, self._error + errors * np.float32(1 + self._error) + np.float32(_ROUNDING)


def _products(queries: NDArray[Any], matrix: NDArray[Any]) -> Vectors:
    """The inner products of all queries with all rows, float32 [q, rows]."""
    return np.asarray(numkong.cdist(queries, matrix, metric="dot", out_dtype="float32"))


def _quantised(vectors: Vectors) -> tuple[NDArray[np.int8], Vector, Vector]:
    """Int8 codes [n, d], what one step of each row is worth, and the length that rounding took from it."""
    scales = np.abs(vectors).max(axis=1) / np.float32(127)
    codes = np.rint(vectors / scales[:, None])
    errors = np.linalg.norm(vectors - codes * scales[:, None], axis=1)
    return codes.astype(np.int8), scales, errors


def _doubled(array: _Array) -> _Array:
    return np.concatenate((array, np.zeros_like(array)))  # type: ignore[return-value]
