"""The seams between the encoder models and whatever runs their forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What the batching side must know of a loaded encoder."""

    dimensions: int
    """Length of an output vector; the number of labels for a classifier."""
    max_tokens: int
    """Longest input in tokens, special tokens included."""


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Two texts as a classifier reads them, in one sequence with their special tokens."""

    ids: list[int]
    second: int
    """Index of the first token that belongs to the second text; from there on tokens are of type 1."""


class BatchRuntime(Protocol):
    """What every loaded encoder has, whatever it computes."""

    @property
    def spec(self) -> EncoderSpec:
        """Sizes, constant over the runtime's life."""
        ...

    @property
    def concurrency(self) -> int:
        """Batches that it computes at a time; so many threads may call it at once."""
        ...

    @property
    def pads(self) -> bool:
        """Whether a batch costs its longest input's tokens for each; if not, about the sum of all."""
        ...

    @property
    def computed_tokens(self) -> int:
        """Tokens computed so far, padding included."""
        ...

    def close(self) -> None:
        """Free the device memory."""
        ...


class EncoderRuntime(BatchRuntime, Protocol):
    """A loaded encoder with its pooling and normalisation."""

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Run one batch of token-id sequences; returns [len(batch), dimensions].

        Blocks its thread and releases the GIL while the device works.
        """
        ...


class ClassifierRuntime(BatchRuntime, Protocol):
    """A loaded encoder with a classification head, such as a cross-encoder."""

    def classify(self, batch: Sequence[TokenPair]) -> NDArray[np.float32]:
        """Run one batch of pairs; returns the head's logits, [len(batch), dimensions].

        Blocks its thread and releases the GIL while the device works.
        """
        ...
