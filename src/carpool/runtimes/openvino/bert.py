"""BERT as OpenVINO nodes: token ids in, hidden states or a classifier's logits out.

The architecture is that of Devlin et al., https://arxiv.org/abs/1810.04805, with the tensor names of Hugging
Face's `BertModel`. Covers MiniLM, BGE, E5, GTE and other sentence encoders of the family, and cross-encoders.
"""

import openvino as ov
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.blocks import ints, layer_norm, linear
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.weights import constant, matrix

_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


class Bert:
    """The layers of a checkpoint, with their inputs.

    `attention_mask` is 1 for tokens and 0 for padding, which is on the right. With `token_types` there is an
    input for them, otherwise all tokens are of type 0. `weights` says how the layers' matrices are held, AUTO
    as in the checkpoint. Raises `ModelFailed` for a variant of the architecture that is not supported.
    """

    prefix = "bert."
    """Before the names of the encoder's tensors in a checkpoint with a head."""

    def __init__(self, checkpoint: Checkpoint, weights: WeightFormat, *, token_types: bool) -> None:
        config = checkpoint.config
        if (position := config.get("position_embedding_type", "absolute")) != "absolute":
            raise ModelFailed(f"{checkpoint.architecture} with {position} positions is not supported")
        if (activation := config.get("hidden_act", "gelu")) not in _GELU:
            raise ModelFailed(f"{checkpoint.architecture} with the activation {activation} is not supported")
        self._checkpoint = checkpoint
        self._weights = weights
        self._prefix = "" if "embeddings.word_embeddings.weight" in checkpoint else self.prefix
        self._approximation = _GELU[activation]
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._num_layers = int(config["num_hidden_layers"])
        self._hidden_size = int(config["hidden_size"])
        self._num_heads = int(config["num_attention_heads"])
        self.input_ids = ops.parameter([-1, -1], ov.Type.i32, name="input_ids")
        self.attention_mask = ops.parameter([-1, -1], ov.Type.i32, name="attention_mask")
        self.token_type_ids = (
            ops.parameter([-1, -1], ov.Type.i32, name="token_type_ids") if token_types else None
        )
        self._is_token = ops.not_equal(self.attention_mask, ops.constant(0, ov.Type.i32))

    @property
    def inputs(self) -> list[ov.Node]:
        """The graph's parameters, each i32 [batch, tokens]."""
        inputs = [self.input_ids, self.attention_mask]
        return inputs if self.token_type_ids is None else [*inputs, self.token_type_ids]

    def hidden(self) -> ov.Node:
        """The last layer's hidden states, f32 [batch, tokens, hidden_size]."""
        words = ops.gather(self._table("word"), self.input_ids, index(0))
        hidden = self._layer_norm(ops.add(words, self._places()), f"{self._prefix}embeddings.LayerNorm")
        for layer in range(self._num_layers):
            hidden = self._layer(hidden, f"{self._prefix}encoder.layer.{layer}")
        return hidden

    def logits(self) -> ov.Node:
        """What the head of `BertForSequenceClassification` gives, f32 [batch, labels]."""
        first = ops.gather(self.hidden(), index(0), index(1))
        pooled = ops.tanh(self._linear(first, f"{self._prefix}pooler.dense"))
        return self._linear(pooled, "classifier")

    def _places(self) -> ov.Node:
        """What is added to the words for their positions and types."""
        positions, types = self._table("position"), self._table("token_type")
        num_tokens = ops.gather(ops.shape_of(self.input_ids), ints(1), index(0))
        if self.token_type_ids is None:  # one table, cut to length
            table = ops.add(positions, ops.gather(types, index(0), index(0)))
            return ops.slice(table, ints(0), num_tokens, ints(1), ints(0))
        places = ops.slice(positions, ints(0), num_tokens, ints(1), ints(0))
        return ops.add(places, ops.gather(types, self.token_type_ids, index(0)))

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

    def _linear(self, x: ov.Node, name: str) -> ov.Node:
        weight = self._checkpoint.tensor(f"{name}.weight")
        held = constant(weight) if self._weights is WeightFormat.AUTO else matrix(weight, self._weights)
        return linear(x, held, self._constant(f"{name}.bias"))

    def _layer_norm(self, x: ov.Node, name: str) -> ov.Node:
        return layer_norm(x, self._constant(f"{name}.weight"), self._constant(f"{name}.bias"), self._eps)

    def _table(self, name: str) -> ov.Node:
        return self._constant(f"{self._prefix}embeddings.{name}_embeddings.weight")

    def _constant(self, name: str) -> ov.Node:
        return constant(self._checkpoint.tensor(name))


def index(value: int) -> ov.Node:
    """A scalar, for the place or the axis of a gather."""
    return ops.constant(value, ov.Type.i64)
