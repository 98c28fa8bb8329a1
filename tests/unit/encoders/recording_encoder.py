"""Runtimes without a model: a test sees their batches and holds them at will."""

import math
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.encoder import EncoderSpec, TokenPair

POISON = 30_000
"""A batch that holds this token id fails."""
OVERFLOW = 30_001
"""The vector of a sequence that begins with this token id is no numbers."""


class RecordingEncoder:
    """Implements `EncoderRuntime`: a sequence's vector is (its length, its first id, the sum of its ids)."""

    concurrency = 1
    pads = True

    def __init__(self, max_tokens: int = 256) -> None:
        self.spec = EncoderSpec(dimensions=3, max_tokens=max_tokens)
        self.computed_tokens = 0
        self.batches: list[list[list[int]]] = []
        self.entered = threading.Semaphore(0)
        """Released once for every batch that reached the device."""
        self._free = threading.Event()
        self._free.set()

    def hold(self) -> None:
        """Let batches wait on the device until `release`."""
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append([list(ids) for ids in batch])
        self.entered.release()
        self._free.wait()
        if any(POISON in ids for ids in batch):
            raise RuntimeError("poisoned")
        self.computed_tokens += len(batch) * max(map(len, batch))
        return np.array([vector(ids) for ids in batch], np.float32)

    def close(self) -> None:
        self.release()


class RecordingClassifier(RecordingEncoder):
    """Implements `ClassifierRuntime`: a pair's logit is the sum of its second text's ids; types are kept."""

    def __init__(self, max_tokens: int = 256, labels: int = 1) -> None:
        super().__init__(max_tokens)
        self.spec = EncoderSpec(dimensions=labels, max_tokens=max_tokens)
        self.pairs: list[TokenPair] = []

    def classify(self, batch: Sequence[TokenPair]) -> NDArray[np.float32]:
        self.pairs += batch
        self.encode([pair.ids for pair in batch])
        return np.array([[sum(pair.ids[pair.second :])] for pair in batch], np.float32)


def vector(ids: Sequence[int]) -> list[float]:
    return [len(ids), ids[0] if ids[0] != OVERFLOW else math.nan, sum(ids)]
