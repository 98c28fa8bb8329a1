"""A Llama with random weights, small enough to be computed in NumPy as well."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat, WeightSize

CONFIG: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "hidden_act": "silu",
}

Array = NDArray[np.float64]


class RandomLlama:
    """Implements `Checkpoint`; all tensors are F32."""

    path = Path("random-llama")
    architecture = "LlamaForCausalLM"

    def __init__(self, *, tied: bool = True, bias: bool = False, **config: Any) -> None:
        self.config: Mapping[str, Any] = CONFIG | config
        self._weights = _random_weights(self.config, tied=tied, bias=bias)

    @property
    def size(self) -> WeightSize:
        weights = self._weights.values()
        return WeightSize(sum(w.size for w in weights), sum(w.nbytes for w in weights))

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def tensor(self, name: str) -> Tensor:
        if name not in self:
            raise ModelFailed(f"no tensor {name!r}")
        weight = self._weights[name]
        rows = math.prod(weight.shape[:-1])
        return Tensor(name, TensorFormat.F32, weight.shape, weight.reshape(rows, -1).view(np.uint8))

    def logprobs(self, ids: Sequence[int]) -> Array:
        """[len(ids), vocab_size] by the definition of Llama in double precision."""
        hidden = self._w("model.embed_tokens.weight")[list(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            hidden = hidden + self._attend(self._norm(hidden, f"{name}.input_layernorm"), f"{name}.self_attn")
            normed = self._norm(hidden, f"{name}.post_attention_layernorm")
            gate = self._linear(normed, f"{name}.mlp.gate_proj")
            inner = gate / (1 + np.exp(-gate)) * self._linear(normed, f"{name}.mlp.up_proj")
            hidden = hidden + self._linear(inner, f"{name}.mlp.down_proj")
        head = "lm_head" if "lm_head.weight" in self else "model.embed_tokens"
        logits = self._linear(self._norm(hidden, "model.norm"), head)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The likeliest continuation, token by token."""
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(self.logprobs(ids)[-1].argmax()))
        return ids[len(prompt) :]

    def _attend(self, x: Array, name: str) -> Array:
        kv_heads, dim = self.config["num_key_value_heads"], self.config["head_dim"]
        query, key, value = (
            self._linear(x, f"{name}.{part}_proj").reshape(len(x), -1, dim).swapaxes(0, 1) for part in "qkv"
        )
        query, key = self._rotate(query), self._rotate(key)
        group = len(query) // kv_heads
        key, value = key.repeat(group, axis=0), value.repeat(group, axis=0)
        scores = query @ key.swapaxes(1, 2) / math.sqrt(dim)
        scores = np.where(np.tri(len(x), dtype=bool), np.exp(scores), 0)
        attended = (scores / scores.sum(axis=2, keepdims=True)) @ value
        return self._linear(attended.swapaxes(0, 1).reshape(len(x), -1), f"{name}.o_proj")

    def _rotate(self, x: Array) -> Array:
        """Each pair (i, i + dim / 2) of a head turned by position * theta ** (-2 i / dim)."""
        half = x.shape[2] // 2
        turns = np.arange(x.shape[1])[:, None] * self.config["rope_theta"] ** (-np.arange(half) / half)
        turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * turns)
        return np.concatenate([turned.real, turned.imag], axis=2)

    def _linear(self, x: Array, name: str) -> Array:
        y = x @ self._w(f"{name}.weight").T
        return y + self._w(f"{name}.bias") if f"{name}.bias" in self else y

    def _norm(self, x: Array, name: str) -> Array:
        scale = np.sqrt((x**2).mean(axis=1, keepdims=True) + self.config["rms_norm_eps"])
        return np.asarray(x / scale * self._w(f"{name}.weight"))

    def _w(self, name: str) -> Array:
        return self._weights[name].astype(np.float64)


def _random_weights(config: Mapping[str, Any], *, tied: bool, bias: bool) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    linears = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    if not tied:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in linears.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
            if bias:
                shapes[f"model.layers.{layer}.{name}.bias"] = shape[:1]
    weights = {
        name: rng.normal(0, 2 / math.sqrt(shape[-1]), shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    norms = ["model.norm"]
    for layer in range(config["num_hidden_layers"]):
        norms += [f"model.layers.{layer}.{name}_layernorm" for name in ("input", "post_attention")]
    for name in norms:
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, hidden).astype(np.float32)
    return weights
