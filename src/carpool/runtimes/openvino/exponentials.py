"""The exponentials that sampling needs, as a graph: on all threads, in one pass after the maxima."""

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from carpool.runtimes.openvino.device import compile_model

Floats = NDArray[np.float32]


class GraphExponentials:
    """See `sampling.Exponentials`."""

    def __init__(self, vocab_size: int, *, num_threads: int) -> None:
        """Raises `ModelFailed` if the graph cannot be compiled."""
        logits = ops.parameter([-1, vocab_size], np.float32)
        factors = ops.parameter([-1, 1], np.float32)
        highest = ops.reduce_max(logits, ops.constant([1]), keep_dims=True)
        weights = ops.exp(ops.multiply(ops.subtract(logits, highest), factors))
        model = ov.Model([weights], [logits, factors], "exponentials")
        self._request = compile_model(model, num_threads=num_threads, precision="f32").create_infer_request()

    def __call__(self, logits: Floats, factors: Floats) -> Floats:
        """The weights; they are the graph's memory, which the next call overwrites."""
        weights: Floats = self._request.infer(
            [logits, factors[:, None]], share_inputs=True, share_outputs=True
        )[0]
        return weights
