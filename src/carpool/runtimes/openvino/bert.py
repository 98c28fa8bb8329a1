"""BERT as OpenVINO nodes: token ids in, hidden states or a classifier's logits out.

The architecture is that of Devlin et al., https://arxiv.org/abs/1810.04805, with the tensor names of Hugging
Face's `BertModel`. Covers MiniLM, BGE, E5, GTE and other sentence encoders of the family, and cross-encoders.
"""

import openvino as ov
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.blocks import ints, layer_norm, linear, scalar
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, uses_matrix_units
from carpool.runtimes.openvino.weights import constant, matrix

_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_UNSEEN = -1e9
"""Added to a score, leaves nothing of its weight, in f32 and in bf16."""
_FEW_POSITIONS = 1024
"""Up to here a row's scores, a number for each two of its tokens and each head, are small enough to hold."""


class Bert:
    """The layers of a checkpoint, with their inputs.

    Several texts share a row, as `packed_batch` lays them; each sees its own tokens only. With `token_types`
    there is an input for them, otherwise all tokens are of type 0. `weights` says how the layers' matrices
    are held, AUTO as in the checkpoint; `precision` is what the graph is to be computed in. Raises
    `ModelFailed` for a variant of the architecture that is not supported.
    """

    prefix = "bert."
    """Before the names of the encoder's tensors in a checkpoint with a head."""

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, *, token_types: bool
    ) -> None:
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
        self._holds_scores = _holds_scores(precision, int(config.get("max_position_embeddings", 0)))
        names = ["input_ids", "position_ids", "text_ids", "seeing_ids"]
        names += ["token_type_ids"] if token_types else []
        self._inputs = {name: ops.parameter([-1, -1], ov.Type.i32, name=name) for name in names}
        self._inputs |= {name: ops.parameter([-1], ov.Type.i32, name=name) for name in ("firsts", "lengths")}
        self._mask = self._same_text()

    @property
    def inputs(self) -> list[ov.Node]:
        """The graph's parameters, each i32: [rows, tokens], `firsts` and `lengths` [texts]."""
        return list(self._inputs.values())

    def hidden(self) -> tuple[ov.Node, ov.Node]:
        """The last layer's hidden states of each text, and which of them are tokens.

        f32 [texts, tokens, hidden_size] and boolean [texts, tokens]; places beyond a text's end repeat its
        first token.
        """
        counts = ops.range(index(0), ops.reduce_max(self._inputs["lengths"], ints(0)), index(1), "i32")
        is_token = ops.less(ops.unsqueeze(counts, ints(0)), ops.unsqueeze(self._inputs["lengths"], ints(1)))
        places = ops.select(is_token, ops.unsqueeze(counts, ints(0)), ops.constant(0, ov.Type.i32))
        places = ops.add(places, ops.unsqueeze(self._inputs["firsts"], ints(1)))
        return ops.gather(self._tokens(), places, index(0)), is_token

    def first(self) -> ov.Node:
        """The last layer's hidden state of each text's first token, f32 [texts, hidden_size]."""
        return ops.gather(self._tokens(), self._inputs["firsts"], index(0))

    def logits(self) -> ov.Node:
        """What the head of `BertForSequenceClassification` gives, f32 [texts, labels]."""
        pooled = ops.tanh(self._head(self.first(), f"{self._prefix}pooler.dense"))
        return self._head(pooled, "classifier")

    def _tokens(self) -> ov.Node:
        """The last layer's hidden states, f32 [rows * tokens, hidden_size]."""
        words = ops.gather(self._table("word"), self._inputs["input_ids"], index(0))
        hidden = self._layer_norm(ops.add(words, self._places()), f"{self._prefix}embeddings.LayerNorm")
        for layer in range(self._num_layers):
            hidden = self._layer(hidden, f"{self._prefix}encoder.layer.{layer}")
        return ops.reshape(hidden, ints(-1, self._hidden_size), False)

    def _places(self) -> ov.Node:
        """What is added to the words for their positions and types."""
        positions, types = self._table("position"), self._table("token_type")
        position_ids, token_types = self._inputs["position_ids"], self._inputs.get("token_type_ids")
        if token_types is None:
            return ops.gather(
                ops.add(positions, ops.gather(types, index(0), index(0))), position_ids, index(0)
            )
        places = ops.gather(positions, position_ids, index(0))
        return ops.add(places, ops.gather(types, token_types, index(0)))

    def _same_text(self) -> ov.Node:
        """What is added to the scores, f32 [rows, 1, tokens or 1, tokens]: nothing within a text."""
        seeing, seen = self._inputs["seeing_ids"], self._inputs["text_ids"]
        same = ops.equal(ops.unsqueeze(seeing, ints(1, 3)), ops.unsqueeze(seen, ints(1, 2)))
        return ops.select(same, scalar(0), scalar(_UNSEEN))

    def _layer(self, hidden: ov.Node, name: str) -> ov.Node:
        attended = self._linear(
            self._attend(hidden, f"{name}.attention.self"), f"{name}.attention.output.dense"
        )
        hidden = self._layer_norm(ops.add(attended, hidden), f"{name}.attention.output.LayerNorm")
        inner = ops.gelu(self._linear(hidden, f"{name}.intermediate.dense"), self._approximation)
        outer = self._linear(inner, f"{name}.output.dense")
        return self._layer_norm(ops.add(outer, hidden), f"{name}.output.LayerNorm")

    def _attend(self, hidden: ov.Node, name: str) -> ov.Node:
        """Bidirectional attention.

        The plugin fuses the operation with its transposes into one kernel. On AMX its parts by themselves are
        faster, by 3 % of a batch of texts that fill blocks and by 9 % where several share a row.
        """
        heads = ints(0, 0, self._num_heads, self._hidden_size // self._num_heads)
        heads_first = ints(0, 2, 1, 3)
        query, key, value = (
            ops.transpose(ops.reshape(self._linear(hidden, f"{name}.{part}"), heads, True), heads_first)
            for part in ("query", "key", "value")
        )
        if self._holds_scores:
            scale = scalar((self._hidden_size // self._num_heads) ** -0.5)
            scores = ops.multiply(ops.matmul(query, key, False, True), scale)
            attended = ops.matmul(ops.softmax(ops.add(scores, self._mask), 3), value, False, False)
        else:
            attended = ops.scaled_dot_product_attention(query, key, value, self._mask)
        return ops.reshape(ops.transpose(attended, heads_first), ints(0, 0, self._hidden_size), True)

    def _head(self, x: ov.Node, name: str) -> ov.Node:
        """A product of the head, whose matrices are held as in the checkpoint whatever `weights` says.

        They are next to nothing beside the layers'. And where a graph is compiled for several streams, the
        plugin leaves out the scale of an 8-bit matrix with one row in all streams but one.
        """
        return linear(x, self._constant(f"{name}.weight"), self._constant(f"{name}.bias"))

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


def _holds_scores(precision: Precision, positions: int) -> bool:
    """Whether attention is best computed part by part, with its scores in memory."""
    return uses_matrix_units(precision) and positions <= _FEW_POSITIONS


def index(value: int) -> ov.Node:
    """A scalar, for the place or the axis of a gather."""
    return ops.constant(value, ov.Type.i64)
