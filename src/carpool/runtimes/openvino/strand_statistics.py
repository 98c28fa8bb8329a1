"""The statistics of strands that sampling needs, as a graph: all passes over whole rows, on all threads."""

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from carpool.runtimes.openvino.device import compile_model
from carpool.runtimes.selection import STRAND

Floats = NDArray[np.float32]


class GraphStatistics:
    """See `selection.StrandStatistics`."""

    def __init__(self, vocab_size: int, *, num_threads: int) -> None:
        """Raises `ModelFailed` if the graph cannot be compiled."""
        size = -(-vocab_size // STRAND) * STRAND
        logits = ops.parameter([-1, size], np.float32)
        factors = ops.parameter([-1, 1], np.float32)
        maxima = ops.reduce_max(_in_strands(logits), ops.constant([2]))
        highest = ops.reduce_max(maxima, ops.constant([1]), keep_dims=True)
        weights = ops.exp(ops.multiply(ops.subtract(logits, highest), factors))
        sums = ops.reduce_sum(_in_strands(weights), ops.constant([2]))
        model = ov.Model([maxima, sums], [logits, factors], "strand statistics")
        self._request = compile_model(model, num_threads=num_threads, precision="f32").create_infer_request()

    def __call__(self, logits: Floats, factors: Floats) -> tuple[Floats, Floats]:
        """The statistics, in the graph's memory, which the next call overwrites."""
        for place, array in enumerate((logits, factors[:, None])):
            self._request.set_input_tensor(place, ov.Tensor(array, shared_memory=True))
        self._request.infer()
        return self._request.get_output_tensor(0).data, self._request.get_output_tensor(1).data


def _in_strands(rows: ov.Node) -> ov.Node:
    return ops.reshape(rows, ops.constant([0, -1, STRAND]), special_zero=True)
