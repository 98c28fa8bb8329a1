"""BERT as an OpenVINO graph: token ids in, one vector per sequence out.

The architecture is that of Devlin et al., https://arxiv.org/abs/1810.04805, with the tensor names of Hugging
Face's `BertModel`. Covers MiniLM, BGE, E5, GTE and other sentence encoders of the family.
"""

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.blocks import ints, layer_norm, linear
from carpool.runtimes.openvino.weights import constant
from carpool.runtimes.pooling import Pooling, PoolingMode

ARCHITECTURES = frozenset({"BertModel", "BertForMaskedLM", "BertForPreTraining"})
"""Whose encoder can be built here; heads are left out."""

_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


def build_bert(checkpoint: Checkpoint, pooling: Pooling) -> ov.Model:
    """The graph of a checkpoint's encoder with its pooling.

    Inputs `input_ids` and `attention_mask`, both i32 [batch, tokens], 1 in the mask for tokens and 0 for
    padding, which is on the right; output `embeddings`, f32 [batch, hidden_size]. All tokens are of type 0.
    Raises `ModelFailed` for an architecture or a variant of it that is not supported.
    """
    return _Bert(checkpoint).model(pooling)


class _Bert:
    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        if checkpoint.architecture not in ARCHITECTURES:
            raise ModelFailed(f"{checkpoint.architecture} is not an encoder that can be built")
        if (position := config.get("position_embedding_type", "absolute")) != "absolute":
            raise ModelFailed(f"BERT with {position} positions is not supported")
        if (activation := config.get("hidden_act", "gelu")) not in _GELU:
            raise ModelFailed(f"BERT with the activation {activation} is not supported")
        self._checkpoint = checkpoint
        self._prefix = "" if "embeddings.word_embeddings.weight" in checkpoint else "bert."
        self._approximation = _GELU[activation]
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._num_layers = int(config["num_hidden_layers"])
        self._hidden_size = int(config["hidden_size"])
        self._num_heads = int(config["num_attention_heads"])
        self._input_ids = ops.parameter([-1, -1], ov.Type.i32, name="input_ids")
        self._attention_mask = ops.parameter([-1, -1], ov.Type.i32, name="attention_mask")
        self._is_token = ops.not_equal(self._attention_mask, ops.constant(0, ov.Type.i32))

    def model(self, pooling: Pooling) -> ov.Model:
        hidden = self._embed()
        for index in range(self._num_layers):
            hidden = self._layer(hidden, f"encoder.layer.{index}")
        vectors = self._pool(hidden, pooling.mode)
        if pooling.normalize:
            vectors = ops.normalize_l2(vectors, ints(1), 1e-12, "max")
        result = ops.result(vectors)
        result.output(0).set_names({"embeddings"})
        return ov.Model([result], [self._input_ids, self._attention_mask], "bert")

    def _embed(self) -> ov.Node:
        first = ops.constant(0, ov.Type.i64)
        words = ops.gather(self._weight("embeddings.word_embeddings.weight"), self._input_ids, first)
        num_tokens = ops.gather(ops.shape_of(self._input_ids), ints(1), first)
        # Positions run from 0, and type 0 belongs to every token: one table, cut to length.
        table = ops.add(
            self._weight("embeddings.position_embeddings.weight"),
            ops.gather(self._weight("embeddings.token_type_embeddings.weight"), first, first),
        )
        positions = ops.slice(table, ints(0), num_tokens, ints(1), ints(0))
        return self._layer_norm(ops.add(words, positions), "embeddings.LayerNorm")

    def _layer(self, hidden: ov.Node, name: str) -> ov.Node:
        attended = self._linear(
            self._attend(hidden, f"{name}.attention.self"), f"{name}.attention.output.dense"
        )
        hidden = self._layer_norm(ops.add(attended, hidden), f"{name}.attention.output.LayerNorm")
        inner = ops.gelu(self._linear(hidden, f"{name}.intermediate.dense"), self._approximation)
        outer = self._linear(inner, f"{name}.output.dense")
        return self._layer_norm(ops.add(outer, hidden), f"{name}.output.LayerNorm")

    def _attend(self, hidden: ov.Node, name: str) -> ov.Node:
        """Bidirectional attention; the plugin fuses the operation with its transposes into one kernel."""
        heads = ints(0, 0, self._num_heads, self._hidden_size // self._num_heads)
        heads_first = ints(0, 2, 1, 3)
        query, key, value = (
            ops.transpose(ops.reshape(self._linear(hidden, f"{name}.{part}"), heads, True), heads_first)
            for part in ("query", "key", "value")
        )
        mask = ops.unsqueeze(self._is_token, ints(1, 2))
        attended = ops.scaled_dot_product_attention(query, key, value, mask)
        return ops.reshape(ops.transpose(attended, heads_first), ints(0, 0, self._hidden_size), True)

    def _pool(self, hidden: ov.Node, mode: PoolingMode) -> ov.Node:
        if mode is PoolingMode.CLS:
            return ops.gather(hidden, ops.constant(0, ov.Type.i64), ops.constant(1, ov.Type.i64))
        is_token = ops.unsqueeze(self._is_token, ints(2))
        if mode is PoolingMode.MAX:
            lowest = ops.constant(np.float32(np.finfo(np.float32).min))
            return ops.reduce_max(ops.select(is_token, hidden, lowest), ints(1), False)
        weights = ops.convert(is_token, "f32")
        total = ops.reduce_sum(ops.multiply(hidden, weights), ints(1), False)
        return ops.divide(total, ops.reduce_sum(weights, ints(1), False))

    def _linear(self, x: ov.Node, name: str) -> ov.Node:
        return linear(x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"))

    def _layer_norm(self, x: ov.Node, name: str) -> ov.Node:
        return layer_norm(x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"), self._eps)

    def _weight(self, name: str) -> ov.Node:
        return constant(self._checkpoint.tensor(self._prefix + name))
