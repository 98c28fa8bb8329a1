"""Products of 8-bit activations and 8-bit weights, which matrix units do twice as fast as those in bf16."""

import math

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.runtimes.openvino.blocks import linear
from carpool.runtimes.openvino.weights import int8_rows

_REACH = 6
"""Standard deviations that the 8 bits reach. Normalised and rotated activations are close to normally
distributed, so hardly one of a billion is cut off."""
_STEPS = 127
"""On each side of zero."""
_LONGEST_OUTLIER = 4
"""Standard deviations that a feature with all of a row's energy may be left with by the rotation."""


def can_round(width: int) -> bool:
    """Whether a rotation spreads outliers among `width` features widely enough."""
    return width <= _LONGEST_OUTLIER**2 * _block(width)


def rounded_linear(x: ov.Node, weight: NDArray[np.float32]) -> ov.Node:
    """`x @ weight.T` with both rounded to 8 bits, for x [..., width] whose rows have a mean square of 1.

    All activations share one scale that is known beforehand, so nothing has to be looked for in them, and no
    result has to be scaled by its row. Outliers would not fit into that scale, or make it coarse: hence both
    factors are rotated first, which spreads an outlier over a block of features and leaves the product as it
    is. QuaRot, Ashkboos et al., https://arxiv.org/abs/2404.00456. `weight` is [out_features, width], of a
    width that `can_round`.
    """
    width = weight.shape[1]
    block = _block(width)
    signs = _hadamard(block)
    rotated = linear(x, ops.constant(np.kron(np.eye(width // block, dtype=np.float32), signs)))
    reach = np.float32(_REACH * math.sqrt(block))
    # Makes this a product of integers for the plugin.
    rounded = ops.fake_quantize(rotated, -reach, reach, -reach, reach, 2 * _STEPS + 1)
    weight = np.matmul(weight.reshape(-1, block), signs / np.float32(block)).reshape(weight.shape)
    return linear(rounded, int8_rows(weight))


def _block(width: int) -> int:
    """The largest power of two that divides it."""
    return width & -width


def _hadamard(size: int) -> NDArray[np.float32]:
    """Sylvester's symmetric matrix of ones and minus ones [size, size], whose square is `size`."""
    signs = np.ones((1, 1), np.float32)
    while len(signs) < size:
        signs = np.block([[signs, signs], [signs, -signs]])
    return signs
