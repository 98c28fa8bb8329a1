"""What GPT-2 and GPT-Neo share: learned positions, layer norms and a plain feed-forward layer."""

from abc import abstractmethod

import openvino as ov
from openvino import opset15 as ops

from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.blocks import activation, ints, layer_norm
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.decoder_graph import DecoderGraph
from carpool.runtimes.openvino.device import Precision


class Gpt(DecoderGraph):
    """All but the attention."""

    prefix = "transformer."
    word_embedding = "wte.weight"
    typical_matrix = "h.0.mlp.c_fc.weight"

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, num_threads: int
    ) -> None:
        super().__init__(checkpoint, weights, precision, num_threads)
        self.context_length = self._tensor("wpe.weight").shape[0]
        self._activation = self._config.text("activation_function", "gelu_new")
        self._eps = self._config.number("layer_norm_epsilon", 1e-5)

    @abstractmethod
    def _self_attention(self, hidden: ov.Node, name: str, layer: int) -> ov.Node:
        """Attention with its output projection."""

    def _embed(self, words: ov.Node) -> ov.Node:
        places = ops.gather(self._vector("wpe.weight"), self._position_ids, ops.constant(0, ov.Type.i64))
        return ops.add(words, ops.unsqueeze(places, ints(1)))

    def _layer(self, hidden: ov.Node, layer: int) -> ov.Node:
        name = f"h.{layer}"
        normed = self._norm(hidden, f"{name}.ln_1")
        attended = self._self_attention(normed, f"{name}.attn", layer)
        hidden = ops.add(self._needed(hidden, layer), attended)
        normed = self._norm(hidden, f"{name}.ln_2")
        return ops.add(hidden, self._feed_forward(normed, f"{name}.mlp"))

    def _final_norm(self, hidden: ov.Node) -> ov.Node:
        return self._norm(hidden, "ln_f")

    def _feed_forward(self, hidden: ov.Node, name: str) -> ov.Node:
        inner = activation(self._activation, self._linear(hidden, f"{name}.c_fc"))
        return self._linear(inner, f"{name}.c_proj")

    def _norm(self, x: ov.Node, name: str) -> ov.Node:
        return layer_norm(x, self._vector(f"{name}.weight"), self._vector(f"{name}.bias"), self._eps)
