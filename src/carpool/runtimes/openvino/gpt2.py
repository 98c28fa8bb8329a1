"""GPT-2 as an OpenVINO graph over paged KV memory.

The architecture is that of Radford et al., Language Models are Unsupervised Multitask Learners (2019), with
the tensor names of Hugging Face's `GPT2LMHeadModel`.
"""

import dataclasses

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint, Tensor
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision
from carpool.runtimes.openvino.gpt import Gpt
from carpool.runtimes.openvino.weights import matrix


class Gpt2(Gpt):
    """One matrix for queries, keys and values.

    Hugging Face stores the layers' matrices as [in_features, out_features], GGUF files the other way, as
    everyone else does; the shape of that matrix tells which it is.
    """

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, num_threads: int
    ) -> None:
        super().__init__(checkpoint, weights, precision, num_threads)
        config = self._config
        if config.flag("add_cross_attention", default=False):
            raise ModelFailed(f"{checkpoint.path} attends to an encoder, which is not supported")
        self.num_layers = config.integer("n_layer")
        self._num_heads = config.integer("n_head")
        self._head_dim = config.integer("n_embd") // self._num_heads
        self._scales_scores = config.flag("scale_attn_weights", default=True)
        self._scales_by_layer = config.flag("scale_attn_by_inverse_layer_idx", default=False)
        self._is_transposed = self._tensor("h.0.attn.c_attn.weight").shape[0] == config.integer("n_embd")

    def _self_attention(self, hidden: ov.Node, name: str, layer: int) -> ov.Node:
        joined = self._linear(hidden, f"{name}.c_attn", 3 * self._num_heads * self._head_dim)
        thirds = ops.split(joined, ops.constant(2, ov.Type.i64), 3)
        attended = self._attend(
            *thirds.outputs(),
            num_heads=self._num_heads,
            num_kv_heads=self._num_heads,
            head_dim=self._head_dim,
            scale=self._scale(layer),
        )
        return self._linear(attended, f"{name}.c_proj")

    def _scale(self, layer: int) -> float:
        scale = self._head_dim**-0.5 if self._scales_scores else 1.0
        return scale / (layer + 1) if self._scales_by_layer else scale

    def _matrix(self, name: str) -> ov.Node:
        if self._is_transposed and name.startswith("h."):
            return matrix(_transposed(self._tensor(name)), self._weights)
        return super()._matrix(name)


def _transposed(tensor: Tensor) -> Tensor:
    """The matrix, which must not be quantised, with its axes exchanged; copied."""
    rows, columns = tensor.shape
    items = tensor.data.reshape(rows, columns, -1).swapaxes(0, 1)
    return dataclasses.replace(
        tensor, shape=(columns, rows), data=np.ascontiguousarray(items).reshape(columns, -1)
    )
