"""What a cross-encoder's directory says beside its checkpoint.

As sentence-transformers' `CrossEncoder` reads it, https://sbert.net/docs/package_reference/cross_encoder/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint

from .sentence_transformers import read_max_tokens, read_optional


class Activation(StrEnum):
    """What makes a score of a logit."""

    SIGMOID = "sigmoid"
    IDENTITY = "identity"

    def of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores of logits, of the same shape."""
        if self is Activation.IDENTITY:
            return logits
        # exp only of what is not positive, so that it cannot overflow.
        small = np.exp(-np.abs(logits))
        scores: NDArray[np.float32] = np.where(logits < 0, small, np.float32(1)) / (1 + small)
        return scores


_ACTIVATIONS = {
    None: Activation.SIGMOID,  # what a model with one label gets
    "torch.nn.modules.activation.Sigmoid": Activation.SIGMOID,
    "torch.nn.modules.linear.Identity": Activation.IDENTITY,
}


@dataclass(frozen=True, slots=True)
class CrossEncoderConfig:
    """The parts that a score needs."""

    activation: Activation = Activation.SIGMOID
    max_tokens: int | None = None
    """Longest pair, special tokens included; None: as many as the model has positions for."""

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> "CrossEncoderConfig":
        """Read a checkpoint's config and the optional files beside it.

        Raises `ModelFailed` for an activation or a prompt that cannot be reproduced, as the scores would be
        wrong without a sign of it.
        """
        path = checkpoint.path / "config_sentence_transformers.json"
        extra = read_optional(path)
        if extra.get("default_prompt_name") is not None:
            raise ModelFailed(f"{path}: a reranker with a prompt is not supported")
        activation = _activation_name(extra, checkpoint.config)
        if activation not in _ACTIVATIONS:
            raise ModelFailed(f"{checkpoint.path} has the activation {activation}, which is not supported")
        return cls(_ACTIVATIONS[activation], read_max_tokens(checkpoint.path))


def _activation_name(extra: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """Where versions 5, 4 and 3 of the library keep it."""
    section = config.get("sentence_transformers")
    older = section.get("activation_fn") if isinstance(section, dict) else None
    return extra.get("activation_fn") or older or config.get("sbert_ce_default_activation_function")
