"""Layers that several graphs share, in the shapes the CPU plugin's fusions look for."""

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.errors import ModelFailed


def ints(*values: int) -> ov.Node:
    """A 1-d i64 constant, as shapes, axes and permutations are given."""
    return ops.constant(np.array(values, np.int64))


def scalar(value: float) -> ov.Node:
    """An f32 scalar."""
    return ops.constant(np.float32(value))


def linear(x: ov.Node, weight: ov.Node, bias: ov.Node | None = None) -> ov.Node:
    """`x @ weight.T + bias`, with weight [out_features, in_features]."""
    y = ops.matmul(x, weight, False, True)
    return y if bias is None else ops.add(y, bias)


def layer_norm(x: ov.Node, weight: ov.Node, bias: ov.Node, eps: float) -> ov.Node:
    """Layer normalisation over the last axis."""
    normalised = ops.mvn(x, ints(-1), True, eps, "INSIDE_SQRT")
    return ops.add(ops.multiply(normalised, weight), bias)


def rms_norm(x: ov.Node, weight: ov.Node, eps: float) -> ov.Node:
    """Root-mean-square normalisation over the last axis; becomes the plugin's RMS node."""
    mean_square = ops.reduce_mean(ops.power(x, scalar(2)), ints(-1), True)
    return ops.multiply(
        ops.multiply(x, ops.divide(scalar(1), ops.sqrt(ops.add(mean_square, scalar(eps))))), weight
    )


def activation(name: str, x: ov.Node | ov.Output) -> ov.Node:
    """The activation function of Hugging Face's name. Raises `ModelFailed` for one that is not supported."""
    match name:
        case "silu" | "swish":
            # Becomes a Swish of one input; `ops.swish` makes one of two, which the AMX kernel for gated
            # feed-forward layers (LLMMLP) does not match.
            return ops.multiply(x, ops.sigmoid(x))
        case "gelu":
            return ops.gelu(x, "erf")
        case "gelu_new" | "gelu_pytorch_tanh":
            return ops.gelu(x, "tanh")
        case "relu":
            return ops.relu(x)
    raise ModelFailed(f"the activation {name!r} is not supported")


def split_heads(x: ov.Node | ov.Output, num_heads: int, head_dim: int) -> ov.Node:
    """[tokens, 1, heads * head_dim] as [tokens, heads, 1, head_dim]."""
    return ops.reshape(x, ints(-1, num_heads, 1, head_dim), False)


def rotary_angles(position_ids: ov.Node, frequencies: NDArray[np.float64]) -> tuple[ov.Node, ov.Node]:
    """Cosines and sines of the rotary embedding, each [tokens, 1, 1, head_dim], of positions [tokens]."""
    positions = ops.convert(ops.reshape(position_ids, ints(-1, 1, 1, 1), False), "f32")
    angles = ops.multiply(positions, ops.constant(frequencies.astype(np.float32).reshape(1, 1, 1, -1)))
    angles = ops.concat([angles, angles], -1)
    return ops.cos(angles), ops.sin(angles)


def rope(heads: ov.Node, angles: tuple[ov.Node, ov.Node], head_dim: int) -> ov.Node:
    """Rotate the halves of every head of [tokens, heads, 1, head_dim].

    Su et al., https://arxiv.org/abs/2104.09864, in Hugging Face's layout. Becomes the plugin's RoPE node,
    which wants [batch, heads, tokens, head_dim]: tokens stand on the batch axis, so nothing is transposed.
    """
    cos, sin = angles
    halves = ops.variadic_split(heads, ops.constant(3, ov.Type.i64), ints(head_dim // 2, head_dim // 2))
    rotated = ops.concat([ops.multiply(halves.output(1), scalar(-1)), halves.output(0)], -1)
    return ops.add(ops.multiply(heads, cos), ops.multiply(rotated, sin))
