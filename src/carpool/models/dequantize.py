"""Stored tensors as NumPy floats, for weights that a runtime does not hold in their stored form."""

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat


def dequantize(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a floating-point or quantised tensor, float32 in the tensor's shape.

    The result may be a read-only view of the file where the tensor is stored as F32. Raises `ModelFailed` for
    integer tensors.
    """
    if tensor.format is TensorFormat.F32:
        values = tensor.data.view(np.float32)
    elif tensor.format is TensorFormat.F16:
        values = tensor.data.view(np.float16).astype(np.float32)
    elif tensor.format is TensorFormat.BF16:  # the upper half of a float32
        values = (tensor.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif tensor.format is TensorFormat.I64:
        raise ModelFailed(f"tensor {tensor.name!r} holds integers, not weights")
    else:
        # Imported here: 0.3 s that the processes which never dequantise need not spend.
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize as dequantize_blocks

        values = dequantize_blocks(tensor.data, GGMLQuantizationType[tensor.format])
    return values.reshape(tensor.shape)
