"""Llama as an OpenVINO graph over paged KV memory.

The architecture is that of Touvron et al., https://arxiv.org/abs/2302.13971, with the tensor names of Hugging
Face's `LlamaForCausalLM`. SmolLM2 and others of the family are the same graph.
"""

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.dequantize import dequantize
from carpool.runtimes.openvino.blocks import (
    activation,
    ints,
    linear,
    rms_norm,
    rope,
    rotary_angles,
    split_heads,
)
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.decoder_graph import DecoderGraph
from carpool.runtimes.openvino.device import Precision, has_matrix_units, uses_matrix_units
from carpool.runtimes.openvino.rotary import rotary_frequencies
from carpool.runtimes.openvino.rounded_product import can_round, rounded_linear

FREQUENCY_DIVISORS = "rope_freqs.weight"
"""GGUF's form of Llama 3.1's rotary embeddings, [head_dim / 2]."""
_TILE = 64
"""8-bit elements in a row of an AMX tile."""


class Llama(DecoderGraph):
    """Root-mean-square norms, rotary positions, grouped-query attention and a gated feed-forward layer."""

    word_embedding = "embed_tokens.weight"
    typical_matrix = "layers.0.mlp.up_proj.weight"

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, num_threads: int
    ) -> None:
        super().__init__(checkpoint, weights, precision, num_threads)
        config = self._config
        self.num_layers = config.integer("num_hidden_layers")
        self.context_length = config.integer("max_position_embeddings")
        self._activation = config.text("hidden_act", "silu")
        self._eps = config.number("rms_norm_eps")
        self._hidden_size = config.integer("hidden_size")
        self._feed_forward_width = config.integer("intermediate_size")
        self._num_heads = config.integer("num_attention_heads")
        self._num_kv_heads = config.integer("num_key_value_heads", self._num_heads)
        self._head_dim = config.integer("head_dim", self._hidden_size // self._num_heads)
        frequencies = rotary_frequencies(config, self._head_dim)
        if FREQUENCY_DIVISORS in checkpoint:
            frequencies /= dequantize(checkpoint.tensor(FREQUENCY_DIVISORS)).astype(np.float64)
        self._angles = rotary_angles(self._position_ids, frequencies)

    def _layer(self, hidden: ov.Node, layer: int) -> ov.Node:
        name = f"layers.{layer}"
        normed = self._norm(hidden, f"{name}.input_layernorm")
        attended = self._self_attention(normed, f"{name}.self_attn", layer)
        hidden = ops.add(self._needed(hidden, layer), attended)
        normed = self._norm(hidden, f"{name}.post_attention_layernorm")
        return ops.add(hidden, self._feed_forward(normed, f"{name}.mlp"))

    def _head(self, hidden: ov.Node, embedding: ov.Node) -> ov.Node:
        norm = dequantize(self._tensor("norm.weight"))
        if norm.shape != (self._embedding_width,):
            raise ModelFailed(
                f"{self._checkpoint.path}: norm.weight has the shape {list(norm.shape)} for "
                f"{self._embedding_width} features"
            )
        if not self._rounds_head:
            return super()._head(hidden, embedding)
        # With the norm's weights in the head's, what the norm gives has a mean square of 1.
        normed = rms_norm(hidden, ops.constant(np.ones_like(norm)), self._eps)
        # A product with ones, no ReduceSum: the plugin computes in f32 what leads to an output of the graph
        # without a product between, which would be the residual sums of all layers.
        ones = ops.constant(np.ones((1, self._embedding_width), np.float32))
        self._row_sums = ops.reshape(linear(normed, ones), ints(-1), False)
        head = self._tensor(self.word_embedding if self._is_tied else "lm_head.weight")
        return rounded_linear(normed, dequantize(head) * norm)

    def _final_norm(self, hidden: ov.Node) -> ov.Node:
        return self._norm(hidden, "norm")

    def _self_attention(self, hidden: ov.Node, name: str, layer: int) -> ov.Node:
        query_width, kv_width = self._num_heads * self._head_dim, self._num_kv_heads * self._head_dim
        query, key, value = self._projections(
            hidden, [f"{name}.{part}_proj" for part in "qkv"], [query_width, kv_width, kv_width]
        )
        attended = self._attend(
            rope(self._heads(query, f"{name}.q", self._num_heads), self._angles, self._head_dim),
            rope(self._heads(key, f"{name}.k", self._num_kv_heads), self._angles, self._head_dim),
            value,
            num_heads=self._num_heads,
            num_kv_heads=self._num_kv_heads,
            head_dim=self._head_dim,
            scale=self._head_dim**-0.5,
            sliding_window=self._sliding_window(layer),
        )
        return self._linear(attended, f"{name}.o_proj")

    def _heads(self, x: ov.Output, name: str, num_heads: int) -> ov.Node:  # noqa: ARG002  # others' heads have weights
        """Queries or keys before they are rotated, [tokens, heads, 1, head_dim]."""
        return split_heads(x, num_heads, self._head_dim)

    def _sliding_window(self, layer: int) -> int:  # noqa: ARG002  # the layers of others differ
        """The last tokens that a token attends to, 0 for all."""
        return 0

    def _feed_forward(self, hidden: ov.Node, name: str) -> ov.Node:
        names = [f"{name}.gate_proj", f"{name}.up_proj"]
        if self._fuses_feed_forward:  # its pattern has two products
            gate, up = (self._linear(hidden, each).output(0) for each in names)
        else:
            gate, up = self._projections(hidden, names, [self._feed_forward_width] * 2)
        return self._linear(ops.multiply(activation(self._activation, gate), up), f"{name}.down_proj")

    def _is_fused(self, name: str) -> bool:
        return self.feed_forward in name and self._fuses_feed_forward

    @property
    def _fuses_feed_forward(self) -> bool:
        """Whether the plugin's AMX kernel for gated feed-forward layers takes this one.

        It knows no 4 bits. And it takes over what it then cannot do: on a single thread, or with less than a
        tile for each, it ends the process; 8-bit weights whose sides are not in whole tiles fail to compile.
        """
        held = self._held_as(self.feed_forward)
        tile = _TILE if held is WeightFormat.INT8 else _TILE // 2
        if self._num_threads == 1 or self._feed_forward_width < tile * self._num_threads:
            return False
        if held is WeightFormat.INT8 and (self._hidden_size % tile or self._feed_forward_width % tile):
            return False
        return has_matrix_units() and held is not WeightFormat.INT4

    @property
    def _rounds_head(self) -> bool:
        """Whether the output layer is a product of integers.

        Not with INT8, which is for the least memory: a tied head would no longer be the table of embeddings.
        And not with a bias: a NaN in it would be one token's, while `row_sums` tell of whole rows.
        """
        is_mixed = self._weights is WeightFormat.MIXED and not self._has("lm_head.bias")
        return is_mixed and uses_matrix_units(self._precision) and can_round(self._embedding_width)

    @property
    def _embedding_width(self) -> int:
        return self._tensor(self.word_embedding).shape[1]

    def _norm(self, x: ov.Node, name: str) -> ov.Node:
        return rms_norm(x, self._vector(f"{name}.weight"), self._eps)
