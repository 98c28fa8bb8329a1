"""GPT-Neo as an OpenVINO graph over paged KV memory.

The architecture is that of Black et al., https://doi.org/10.5281/zenodo.5297715, with the tensor names of
Hugging Face's `GPTNeoForCausalLM`.
"""

import openvino as ov

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision
from carpool.runtimes.openvino.gpt import Gpt

_GLOBAL, _LOCAL = "global", "local"


class GptNeo(Gpt):
    """Layers that attend to everything and layers that attend to a window; the scores are not scaled."""

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, num_threads: int
    ) -> None:
        super().__init__(checkpoint, weights, precision, num_threads)
        config = self._config
        self.num_layers = config.integer("num_layers")
        self._num_heads = config.integer("num_heads")
        self._head_dim = config.integer("hidden_size") // self._num_heads
        self._window = config.integer("window_size", 256)
        self._attention_layers = self._read_attention_layers()

    def _self_attention(self, hidden: ov.Node, name: str, layer: int) -> ov.Node:
        name = f"{name}.attention"
        width = self._num_heads * self._head_dim
        attended = self._attend(
            *self._projections(hidden, [f"{name}.{part}_proj" for part in "qkv"], [width] * 3),
            num_heads=self._num_heads,
            num_kv_heads=self._num_heads,
            head_dim=self._head_dim,
            scale=1.0,
            sliding_window=self._window if self._attention_layers[layer] == _LOCAL else 0,
        )
        return self._linear(attended, f"{name}.out_proj")

    def _read_attention_layers(self) -> list[str]:
        """The kind of each layer: as listed, else from groups such as [[["global", "local"], 12]]."""
        listed = self._config.texts("attention_layers", self.num_layers, (_GLOBAL, _LOCAL))
        if listed is not None:
            return listed
        match self._checkpoint.config.get("attention_types"):
            case [[[*kinds], int(times)]] if {*kinds} <= {_GLOBAL, _LOCAL} and len(
                kinds
            ) * times == self.num_layers:
                return kinds * times
        raise ModelFailed(f"{self._checkpoint.path}: attention_types must name {self.num_layers} layers")
