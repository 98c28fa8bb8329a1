"""The last layers of an embedding graph: hidden states to one vector per sequence."""

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from carpool.runtimes.openvino.blocks import ints, scalar
from carpool.runtimes.pooling import Pooling, PoolingMode


def pool(hidden: ov.Node, is_token: ov.Node, pooling: Pooling) -> ov.Node:
    """Vectors [texts, hidden_size] of hidden states [texts, tokens, hidden_size]; the others are padding."""
    vectors = _pool(hidden, ops.unsqueeze(is_token, ints(2)), pooling.mode)
    return normalized(vectors) if pooling.normalize else vectors


def normalized(vectors: ov.Node) -> ov.Node:
    """Vectors [batch, dimensions] scaled to length 1."""
    return ops.normalize_l2(vectors, ints(1), 1e-12, "max")


def named_result(node: ov.Node, name: str) -> ov.Node:
    """A graph's output of this name."""
    result = ops.result(node)
    result.output(0).set_names({name})
    return result


def _pool(hidden: ov.Node, is_token: ov.Node, mode: PoolingMode) -> ov.Node:
    if mode is PoolingMode.CLS:
        return ops.gather(hidden, ops.constant(0, ov.Type.i64), ops.constant(1, ov.Type.i64))
    if mode is PoolingMode.MAX:
        lowest = ops.constant(np.float32(np.finfo(np.float32).min))
        highest = ops.reduce_max(ops.select(is_token, hidden, lowest), ints(1), False)
        # The plugin's maximum passes over what is not a number, its sum does not.
        total = ops.reduce_sum(ops.select(is_token, hidden, scalar(0)), ints(1), False)
        return ops.add(highest, ops.multiply(total, scalar(0)))
    weights = ops.convert(is_token, "f32")
    total = ops.reduce_sum(ops.multiply(hidden, weights), ints(1), False)
    return ops.divide(total, ops.reduce_sum(weights, ints(1), False))
