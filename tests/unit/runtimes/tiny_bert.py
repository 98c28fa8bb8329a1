"""A BERT with random weights, small enough to be computed in NumPy as well."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat, WeightSize
from carpool.runtimes.pooling import Pooling, PoolingMode

CONFIG = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}

Array = NDArray[np.float64]


class TinyBert:
    """Implements `Checkpoint`; `stored` is the format the weights are given in."""

    path = Path("tiny-bert")

    def __init__(
        self,
        architecture: str = "BertModel",
        *,
        prefix: str = "",
        stored: TensorFormat = TensorFormat.F32,
        **config: Any,
    ) -> None:
        self.architecture = architecture
        self.config: Mapping[str, Any] = CONFIG | config
        self._prefix = prefix
        self._stored = stored
        self._weights = _random_weights(CONFIG)

    @property
    def size(self) -> WeightSize:
        weights = self._weights.values()
        return WeightSize(sum(w.size for w in weights), sum(w.nbytes for w in weights))

    def __contains__(self, name: object) -> bool:
        return str(name).startswith(self._prefix) and str(name).removeprefix(self._prefix) in self._weights

    def tensor(self, name: str) -> Tensor:
        if name not in self:
            raise ModelFailed(f"no tensor {name!r}")
        weight = self._weights[name.removeprefix(self._prefix)]
        raw: NDArray[Any] = weight
        match self._stored:
            case TensorFormat.F16:
                raw = weight.astype(np.float16)
            case TensorFormat.BF16:
                raw = (weight.view(np.uint32) >> 16).astype(np.uint16)
        rows = math.prod(weight.shape[:-1])
        return Tensor(name, self._stored, weight.shape, raw.reshape(rows, -1).view(np.uint8))

    def vector(self, ids: Sequence[int], pooling: Pooling) -> Array:
        """What the model gives for one sequence, by the definition of BERT in double precision."""
        hidden = self._w("embeddings.word_embeddings.weight")[list(ids)]
        hidden = hidden + self._w("embeddings.position_embeddings.weight")[: len(ids)]
        hidden = self._norm(
            hidden + self._w("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm"
        )
        for index in range(self.config["num_hidden_layers"]):
            hidden = self._layer(hidden, f"encoder.layer.{index}")
        match pooling.mode:
            case PoolingMode.MEAN:
                vector = hidden.mean(axis=0)
            case PoolingMode.CLS:
                vector = hidden[0]
            case PoolingMode.MAX:
                vector = hidden.max(axis=0)
        return np.asarray(vector / np.linalg.norm(vector) if pooling.normalize else vector)

    def _layer(self, hidden: Array, name: str) -> Array:
        heads = self.config["num_attention_heads"]
        query, key, value = (
            self._linear(hidden, f"{name}.attention.self.{part}")
            .reshape(len(hidden), heads, -1)
            .swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(query.shape[2]))
        attended = (scores / scores.sum(axis=2, keepdims=True)) @ value
        attended = attended.swapaxes(0, 1).reshape(hidden.shape)
        out = f"{name}.attention.output"
        hidden = self._norm(self._linear(attended, f"{out}.dense") + hidden, f"{out}.LayerNorm")
        inner = self._linear(hidden, f"{name}.intermediate.dense")
        if self.config["hidden_act"] == "gelu":
            inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        else:
            inner = inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3))) / 2
        return self._norm(self._linear(inner, f"{name}.output.dense") + hidden, f"{name}.output.LayerNorm")

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._w(f"{name}.weight").T + self._w(f"{name}.bias")

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(x.var(axis=1, keepdims=True) + self.config["layer_norm_eps"])
        return np.asarray(scaled * self._w(f"{name}.weight") + self._w(f"{name}.bias"))

    def _w(self, name: str) -> Array:
        return self._weights[name].astype(np.float64)


def _random_weights(config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for name, size in (
            ("attention.self.query", (hidden, hidden)),
            ("attention.self.key", (hidden, hidden)),
            ("attention.self.value", (hidden, hidden)),
            ("attention.output.dense", (hidden, hidden)),
            ("attention.output.LayerNorm", (hidden,)),
            ("intermediate.dense", (inner, hidden)),
            ("output.dense", (hidden, inner)),
            ("output.LayerNorm", (hidden,)),
        ):
            shapes[f"{layer}.{name}.weight"] = size
            shapes[f"{layer}.{name}.bias"] = size[:1]
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    # Values that each format holds exactly, so that the format costs no accuracy.
    return {name: (weight.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, weight in weights.items()}
