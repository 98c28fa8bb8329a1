"""A checkpoint's tensors as constants of a graph, in forms that the CPU plugin has matrix kernels for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat
from carpool.models.dequantize import dequantize
from carpool.runtimes.openvino.blocks import ints
from carpool.runtimes.openvino.config import WeightFormat

GROUP = 32
"""Elements that share a scale in 4-bit matrices."""

_TYPES = {
    TensorFormat.F32: ov.Type.f32,
    TensorFormat.F16: ov.Type.f16,
    TensorFormat.BF16: ov.Type.bf16,
    TensorFormat.I64: ov.Type.i64,
}


def constant(tensor: Tensor) -> ov.Node:
    """The tensor as a constant; half-precision weights are followed by a conversion to f32.

    The plugin folds that conversion into the precision it computes in. Raises `ModelFailed` for a quantised
    tensor.
    """
    type_ = _TYPES.get(tensor.format)
    if type_ is None:
        raise ModelFailed(
            f"tensor {tensor.name!r} has the format {tensor.format}, which is not supported here"
        )
    node = _constant(tensor.data, tensor.shape, type_)
    return ops.convert(node, "f32") if type_ in (ov.Type.f16, ov.Type.bf16) else node


def matrix(tensor: Tensor, weights: WeightFormat, *, is_fused: bool = False) -> ov.Node:
    """A weight matrix as f32 [rows, columns], held as `weights` says, which must not be AUTO or MIXED.

    `is_fused`: it is for one of the plugin's fused kernels, which know no bf16 that is converted at each use.
    Raises `ModelFailed` for a tensor of integers.
    """
    unpack = _UNPACK.get(tensor.format)
    if unpack is not None and weights is WeightFormat.INT4:
        return unpack(tensor.data.reshape(tensor.shape[0], tensor.shape[1] // GROUP, -1)).node()
    values = dequantize(tensor)
    match weights:
        case WeightFormat.BF16:
            node = ops.convert(_constant(_round_to_bf16(values), values.shape, ov.Type.bf16), "f32")
            if not is_fused:
                node.get_rt_info()[_HELD_AS_STORED] = True
            return node
        case WeightFormat.INT4 if tensor.shape[1] % GROUP == 0 and tensor.format is not TensorFormat.Q8_0:
            return _round_to_groups(values).node()
        case WeightFormat.INT8 | WeightFormat.INT4:
            return int8_rows(values)
        case _:
            return ops.constant(values)


_HELD_AS_STORED = "decompression_0"
"""The mark, known from model files, of a conversion that the plugin does at each use, or never where it
computes in bf16. Without it the plugin keeps bf16 weights in f32, to compute with or beside what it computes
with."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """A matrix in groups of 32 along its rows: value = (quantized - zero point) * scale.

    `quantized` is u8 below 16 [rows, groups, 32], `scales` f32 [rows, groups, 1] of f16's values, and
    `zero_points` f32 of the same shape, or one for all.
    """

    quantized: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.float32]

    @classmethod
    def of_offsets(
        cls, quantized: NDArray[np.uint8], scales: NDArray[np.float32], offsets: NDArray[np.float32]
    ) -> Self:
        """From value = quantized * scale + offset.

        Offsets become fractional zero points, which the plugin's kernels take. Rounding those to 4 bits too,
        as converters do, moves whole groups by up to half a step.
        """
        is_constant = scales == 0  # every element of such a group is its offset
        scales = np.where(is_constant, np.float32(1), scales)
        return cls(np.where(is_constant, np.uint8(0), quantized), scales, -offsets / scales)

    def node(self) -> ov.Node:
        """The matrix [rows, columns] with its elements kept in 4 bits.

        Its scales and zero points, which are a third of its bytes in f16, are f32 only where f16 could move
        an element by more than a 128th of a step, or has no such scale.
        """
        rows, count, size = self.quantized.shape
        nibbles = self.quantized.reshape(-1)
        packed = _constant(nibbles[0::2] | nibbles[1::2] << 4, self.quantized.shape, ov.Type.u4)
        fits = np.abs(self.zero_points).max() <= _ZERO_POINT_IN_F16 and _in_f16(self.scales)
        type_, name = (np.float16, "f16") if fits else (np.float32, "f32")
        centred = ops.subtract(ops.convert(packed, name), ops.constant(self.zero_points.astype(type_)))
        scaled = ops.multiply(centred, ops.constant(self.scales.astype(type_)))
        values = ops.reshape(scaled, ints(rows, count * size), False)
        return ops.convert(values, "f32") if fits else values


_ZERO_POINT_IN_F16 = 32
"""Up to here f16 rounds by at most a 128th."""
_F16 = np.finfo(np.float16)


def _in_f16(scales: NDArray[np.float32]) -> bool:
    """Whether f16 holds all scales, but for constant groups' 0, with all its digits."""
    sizes = np.abs(scales[scales != 0])
    return not sizes.size or bool(_F16.smallest_normal <= sizes.min() and sizes.max() <= _F16.max)


def _q4_0(blocks: NDArray[np.uint8]) -> _Groups:
    """Unpack ggml's block_q4_0: f16 scale, 32 nibbles; value = scale * (nibble - 8)."""
    # One zero point for all is not only smaller: a step of one stream takes 0.8 of the time.
    return _Groups(_nibbles(blocks[..., 2:]), _f16(blocks[..., :2]), np.array(8, np.float32))


def _q4_1(blocks: NDArray[np.uint8]) -> _Groups:
    """Unpack ggml's block_q4_1: f16 scale, f16 minimum, 32 nibbles; value = scale * nibble + minimum."""
    return _Groups.of_offsets(_nibbles(blocks[..., 4:]), _f16(blocks[..., :2]), _f16(blocks[..., 2:4]))


_UNPACK = {TensorFormat.Q4_0: _q4_0, TensorFormat.Q4_1: _q4_1}


def _f16(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _nibbles(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The 32 values of a ggml block: all lower halves of its 16 bytes, then all upper ones."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _round_to_groups(values: NDArray[np.float32]) -> _Groups:
    """Round [rows, columns] to 4 bits with a scale and an offset per group, as Q4_1 does."""
    groups = values.reshape(len(values), -1, GROUP)
    lowest, highest = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
    scales = (highest - lowest) / 15
    if _in_f16(scales):
        scales = scales.astype(np.float16).astype(np.float32)
    quantized = np.rint((groups - lowest) / np.where(scales == 0, 1, scales))
    return _Groups.of_offsets(np.clip(quantized, 0, 15).astype(np.uint8), scales, lowest)


def int8_rows(values: NDArray[np.float32]) -> ov.Node:
    """A matrix [rows, columns] held in 8 bits, symmetric, with one scale per row.

    Raises `ModelFailed` for one that is not all numbers, which integers cannot tell.
    """
    scales = np.maximum(values.max(axis=1), -values.min(axis=1))[:, None] / 127
    if not np.isfinite(scales).all():
        raise ModelFailed("the checkpoint has weights that are not numbers")
    scales[scales == 0] = 1
    quantized = values / scales
    np.rint(quantized, out=quantized)
    return ops.multiply(ops.convert(ops.constant(quantized.astype(np.int8)), "f32"), ops.constant(scales))


def _round_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of the float32 bit patterns, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _constant(data: NDArray[Any], shape: Sequence[int], type_: ov.Type) -> ov.Node:
    """Bytes as a constant of a type NumPy need not have. Copied: the graph may outlive the file's mapping."""
    tensor = ov.Tensor(np.ascontiguousarray(data).reshape(-1), ov.Shape(shape), type_)
    return ops.constant(tensor, shared_memory=False)
