"""Frequencies of rotary position embeddings, plain and stretched for longer contexts.

Su et al., https://arxiv.org/abs/2104.09864, with the parameters of Hugging Face's config.json.
"""

import math

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.hyperparameters import Hyperparameters

_TYPES = ("default", "linear", "llama3")


def rotary_frequencies(config: Hyperparameters, head_dim: int) -> NDArray[np.float64]:
    """Radians per position for each pair of a head's dimensions, [head_dim / 2].

    Raises `ModelFailed` for a type of scaling, or a share of the dimensions, that is not supported.
    """
    # transformers 5 keeps everything in rope_parameters, earlier ones only the scaling, under another name.
    rotary = config.section("rope_parameters") or config.section("rope_scaling")
    theta = config.number("rope_theta", 10_000.0)
    share, kind = config.number("partial_rotary_factor", 1.0), "default"
    if rotary is not None:
        theta = rotary.number("rope_theta", theta)
        share = rotary.number("partial_rotary_factor", share)
        kind = rotary.text("rope_type", rotary.text("type", kind))
    if share != 1 or head_dim % 2:
        raise ModelFailed(
            f"rotary embeddings of a part of a head ({share:g} of {head_dim}) are not supported"
        )
    if kind not in _TYPES:
        raise ModelFailed(
            f"rotary embeddings of type {kind!r} are not supported; supported are {', '.join(_TYPES)}"
        )
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rotary is None or kind == "default":
        return frequencies
    factor = rotary.number("factor")
    return frequencies / factor if kind == "linear" else _llama3(frequencies, rotary, factor)


def _llama3(frequencies: NDArray[np.float64], rotary: Hyperparameters, factor: float) -> NDArray[np.float64]:
    """Llama 3.1's: long waves are stretched by `factor`, short ones are kept, those between are blended."""
    low, high = rotary.number("low_freq_factor"), rotary.number("high_freq_factor")
    if low >= high:
        raise ModelFailed(f"low_freq_factor {low:g} must be below high_freq_factor {high:g}")
    waves_in_context = rotary.integer("original_max_position_embeddings") * frequencies / (2 * math.pi)
    kept = np.clip((waves_in_context - low) / (high - low), 0, 1)
    return frequencies * (kept + (1 - kept) / factor)
