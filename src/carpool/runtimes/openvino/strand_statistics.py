"""The statistics of strands that sampling needs, as a graph: all passes over whole rows, on all threads."""

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from carpool.runtimes.half import Floats, Logits
from carpool.runtimes.openvino.device import compile_model
from carpool.runtimes.selection import LOWEST, STRAND, in_strands


class GraphStatistics:
    """See `selection.StrandStatistics`."""

    def __init__(self, vocab_size: int, element_type: ov.Type, *, num_threads: int) -> None:
        """`element_type`: the rows', f32 or bf16. Raises `ModelFailed` if the graph cannot be compiled."""
        self._type = element_type
        rows = ops.parameter([-1, 1, -(-vocab_size // STRAND), STRAND], element_type)
        factors = ops.parameter([-1, -1, 1, 1], np.float32)
        maxima = ops.convert(ops.reduce_max(rows, ops.constant([3]), keep_dims=True), "f32")
        highest = ops.maximum(ops.reduce_max(maxima, ops.constant([2]), keep_dims=True), LOWEST)
        weights = ops.exp(ops.multiply(ops.subtract(ops.convert(rows, "f32"), highest), factors))
        sums = ops.reduce_sum(weights, ops.constant([3]), keep_dims=True)
        model = ov.Model([maxima, sums], [rows, factors], "strand statistics")
        compiled = compile_model(
            model,
            num_threads=num_threads,
            precision="f32",
            # Else the plugin fuses nothing where the number of rows is open, and takes 1.5 times as long.
            properties={"SNIPPETS_MODE": "IGNORE_CALLBACK"},
        )
        self._request = compiled.create_infer_request()

    def __call__(self, rows: Logits, factors: Floats) -> tuple[Floats, Floats]:
        """The statistics, in the graph's memory, which the next call overwrites."""
        strands = in_strands(np.ascontiguousarray(rows))[:, None]
        self._request.set_input_tensor(0, ov.Tensor(strands, ov.Shape(strands.shape), self._type))
        factors = np.ascontiguousarray(factors)[..., None, None]
        self._request.set_input_tensor(1, ov.Tensor(factors, shared_memory=True))
        self._request.infer()
        maxima: Floats = self._request.get_output_tensor(0).data[:, 0, :, 0]
        sums: Floats = self._request.get_output_tensor(1).data[..., 0]
        return maxima, sums
