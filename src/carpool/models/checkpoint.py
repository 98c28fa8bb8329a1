"""What the runtimes see of a model's files, whatever their format.

Names are Hugging Face's throughout: a GGUF file's tensors and metadata are presented under the names the
same model has as a Hugging Face checkpoint, so a graph is written once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class TensorFormat(StrEnum):
    """How a tensor's bytes are laid out: a plain element type, or ggml's quantised blocks of 32 elements."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    I64 = "I64"
    Q4_0 = "Q4_0"
    Q4_1 = "Q4_1"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    Q8_0 = "Q8_0"
    Q4_K = "Q4_K"
    Q5_K = "Q5_K"
    Q6_K = "Q6_K"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as stored, not copied: `data` is a read-only view of the memory-mapped file."""

    name: str
    format: TensorFormat
    shape: tuple[int, ...]
    """In elements, row-major, [out_features, in_features] for a linear layer."""
    data: NDArray[np.uint8]
    """The raw bytes, [rows, bytes per row], rows being the product of all dimensions but the last."""


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """The rows of matrices of one format and width, one below the other; copied."""
    first = tensors[0]
    return Tensor(
        "+".join(tensor.name for tensor in tensors),
        first.format,
        (sum(tensor.shape[0] for tensor in tensors), *first.shape[1:]),
        np.concatenate([tensor.data for tensor in tensors]),
    )


@dataclass(frozen=True, slots=True)
class WeightSize:
    """How large a checkpoint is."""

    num_elements: int
    """Of all tensors; 0 where it is not known, which goes for a graph that is there already."""
    num_bytes: int
    """As stored."""


class Checkpoint(Protocol):
    """An opened model directory or file."""

    @property
    def path(self) -> Path:
        """The directory or file."""
        ...

    @property
    def architecture(self) -> str:
        """The Hugging Face class name, such as `LlamaForCausalLM` or `BertModel`."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Hyperparameters under the names of Hugging Face's config.json."""
        ...

    @property
    def size(self) -> WeightSize:
        """Of its weights, from the files' headers."""
        ...

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of that name."""
        ...

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name. Raises `errors.ModelFailed` where there is none."""
        ...
