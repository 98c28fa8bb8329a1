"""Llama as an OpenVINO graph over paged KV memory.

The architecture is that of Touvron et al., https://arxiv.org/abs/2302.13971, with the tensor names of Hugging
Face's `LlamaForCausalLM`. SmolLM2 and others of the family are the same graph.
"""

import openvino as ov
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.dequantize import dequantize
from carpool.runtimes.openvino.blocks import ints, linear, rms_norm, rope, rotary_angles
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.paged_attention import KvCache, PagedInputs, paged_attention, parameter
from carpool.runtimes.openvino.weights import matrix


def build_llama(checkpoint: Checkpoint, weights: WeightFormat) -> ov.Model:
    """The graph of a checkpoint.

    Inputs, with T tokens and S samples: `input_ids` and `position_ids` i64 [T], `sample_positions` i64 [S]
    (which of the T tokens' logits are wanted), those of `PagedInputs`, and a `KvCache` per layer. Output:
    `logits` f32 [S, vocab_size]. Raises `ModelFailed` for a variant that is not supported.
    """
    return _Llama(checkpoint, weights).model()


class _Llama:
    def __init__(self, checkpoint: Checkpoint, weights: WeightFormat) -> None:
        config = checkpoint.config
        if (activation := config.get("hidden_act", "silu")) != "silu":
            raise ModelFailed(f"Llama with the activation {activation} is not supported")
        rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if (kind := rotary.get("rope_type", rotary.get("type", "default"))) != "default":
            raise ModelFailed(f"Llama with rotary embeddings of type {kind} is not supported")
        self._checkpoint = checkpoint
        self._weights = weights
        self._num_layers = int(config["num_hidden_layers"])
        self._num_heads = int(config["num_attention_heads"])
        self._num_kv_heads = int(config.get("num_key_value_heads") or self._num_heads)
        self._head_dim = int(config.get("head_dim") or config["hidden_size"] // self._num_heads)
        self._vocab_size = int(config["vocab_size"])
        self._eps = float(config["rms_norm_eps"])
        self._input_ids = parameter("input_ids", [-1], ov.Type.i64)
        self._position_ids = parameter("position_ids", [-1], ov.Type.i64)
        self._sample_positions = parameter("sample_positions", [-1], ov.Type.i64)
        self._paged = PagedInputs.create()
        self._caches = [KvCache.create(layer) for layer in range(self._num_layers)]
        theta = float(rotary.get("rope_theta") or config.get("rope_theta", 10_000.0))
        self._angles = rotary_angles(self._position_ids, self._head_dim, theta)

    def model(self) -> ov.Model:
        embedding = self._matrix("model.embed_tokens")
        tied = "lm_head.weight" not in self._checkpoint
        rows = ops.constant(0, ov.Type.i64)
        # [tokens, 1, hidden]: three axes, as the plugin's fusions want.
        hidden = ops.unsqueeze(ops.gather(embedding, self._input_ids, rows), ints(1))
        for layer in range(self._num_layers):
            hidden = self._layer(hidden, layer)
        hidden = self._norm(ops.gather(hidden, self._sample_positions, rows), "model.norm")
        logits = linear(hidden, embedding if tied else self._matrix("lm_head"))
        result = ops.result(ops.reshape(logits, ints(-1, self._vocab_size), False))
        result.output(0).set_names({"logits"})
        inputs = [self._input_ids, self._position_ids, self._sample_positions, *self._paged.parameters]
        for cache in self._caches:
            inputs += [cache.key, cache.value]
        return ov.Model([result], inputs, "llama")

    def _layer(self, hidden: ov.Node, layer: int) -> ov.Node:
        name = f"model.layers.{layer}"
        normed = self._norm(hidden, f"{name}.input_layernorm")
        hidden = ops.add(hidden, self._attend(normed, f"{name}.self_attn", self._caches[layer]))
        normed = self._norm(hidden, f"{name}.post_attention_layernorm")
        return ops.add(hidden, self._feed_forward(normed, f"{name}.mlp"))

    def _attend(self, hidden: ov.Node, name: str, cache: KvCache) -> ov.Node:
        query = rope(self._linear(hidden, f"{name}.q_proj"), self._angles, self._num_heads, self._head_dim)
        key = rope(self._linear(hidden, f"{name}.k_proj"), self._angles, self._num_kv_heads, self._head_dim)
        value = ops.reshape(
            self._linear(hidden, f"{name}.v_proj"), ints(-1, self._num_kv_heads * self._head_dim), False
        )
        attended = paged_attention(
            query, key, value, cache, self._paged, num_kv_heads=self._num_kv_heads, head_dim=self._head_dim
        )
        attended = ops.reshape(attended, ints(-1, 1, self._num_heads * self._head_dim), False)
        return self._linear(attended, f"{name}.o_proj")

    def _feed_forward(self, hidden: ov.Node, name: str) -> ov.Node:
        gate = ops.swish(self._linear(hidden, f"{name}.gate_proj"))
        return self._linear(ops.multiply(gate, self._linear(hidden, f"{name}.up_proj")), f"{name}.down_proj")

    def _linear(self, x: ov.Node, name: str) -> ov.Node:
        bias = f"{name}.bias"
        return linear(x, self._matrix(name), self._vector(bias) if bias in self._checkpoint else None)

    def _norm(self, x: ov.Node, name: str) -> ov.Node:
        return rms_norm(x, self._vector(f"{name}.weight"), self._eps)

    def _matrix(self, name: str) -> ov.Node:
        return matrix(self._checkpoint.tensor(f"{name}.weight"), self._weights)

    def _vector(self, name: str) -> ov.Node:
        return ops.constant(dequantize(self._checkpoint.tensor(name)))
