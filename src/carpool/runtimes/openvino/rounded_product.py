"""Products of 8-bit activations and 8-bit weights, which matrix units do twice as fast as those in bf16."""

import math

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.runtimes.openvino.blocks import linear
from carpool.runtimes.openvino.weights import int8_rows

_REACH = 6
"""Standard deviations that the 8 bits reach. What is normalised and rotated is close to normally distributed,
unless few features have nearly all of a row's energy; what is beyond the reach is cut off."""
_STEPS = 127
"""On each side of zero."""
_MOST_CONCENTRATED = 4
"""Standard deviations that a rotated row has where its energy is all in one feature. It must be within the
reach, with room for others."""
_LARGEST_BLOCK = 256


def can_round(width: int) -> bool:
    """Whether a rotation spreads a row of `width` features widely enough, wherever its energy is."""
    return width <= _MOST_CONCENTRATED**2 * _block(width)


def rounded_linear(x: ov.Node, weight: NDArray[np.float32]) -> ov.Node:
    """`x @ weight.T` with both rounded to 8 bits, for x [..., width] whose rows have a mean square of 1.

    All activations share one scale that is known beforehand, so nothing has to be looked for in them, and no
    result has to be scaled by its row. Outliers would not fit into that scale, or make it coarse: hence both
    factors are rotated first, which spreads every feature over a block and leaves the product as it is.
    QuaRot, Ashkboos et al., https://arxiv.org/abs/2404.00456. `weight` is [out_features, width], of a width
    that `can_round`. Integers hold no NaN: in its place there are numbers that mean nothing. Rows of far less
    energy lose their digits. On processors without VNNI, sums of two products saturate at 16 bits.
    """
    width = weight.shape[1]
    block = _block(width)
    hadamard = _hadamard(block)
    # A random order and random signs, always the same: neither neighbours nor a common sign stay together.
    chance = np.random.default_rng(0)
    order = chance.permutation(width)
    signs = chance.choice(np.array([-1, 1], np.float32), width)
    rotation = np.zeros((width, width), np.float32)
    rotation[:, order] = np.kron(np.eye(width // block, dtype=np.float32), hadamard) * signs
    reach = np.float32(_REACH * math.sqrt(block))  # the rotation has ones, so it is that much too long
    # The plugin's low-precision transformations make a product of integers of what follows a FakeQuantize.
    rounded = ops.fake_quantize(
        linear(x, ops.constant(rotation)), -reach, reach, -reach, reach, 2 * _STEPS + 1
    )
    weight = weight[:, order]
    weight *= signs
    weight = np.matmul(weight.reshape(-1, block), hadamard / np.float32(block)).reshape(-1, width)
    return linear(rounded, int8_rows(weight))


def _block(width: int) -> int:
    """How many features are rotated into each other: the largest power of two in the width, up to 256."""
    return min(width & -width, _LARGEST_BLOCK)


def _hadamard(size: int) -> NDArray[np.float32]:
    """Sylvester's symmetric matrix of ones and minus ones [size, size], whose square is `size`."""
    signs = np.ones((1, 1), np.float32)
    while len(signs) < size:
        signs = np.block([[signs, signs], [signs, -signs]])
    return signs
