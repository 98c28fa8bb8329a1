"""Qwen2 as an OpenVINO graph: Llama with biases on queries, keys and values.

The architecture is that of Yang et al., https://arxiv.org/abs/2407.10671, with the tensor names of Hugging
Face's `Qwen2ForCausalLM`. Qwen2.5 is the same graph.
"""

from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision
from carpool.runtimes.openvino.llama import Llama

_FULL, _SLIDING = "full_attention", "sliding_attention"


class Qwen2(Llama):
    """Llama's layers; biases are where the checkpoint has them. Some layers may have a sliding window."""

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, num_threads: int
    ) -> None:
        super().__init__(checkpoint, weights, precision, num_threads)
        self._windows = self._read_windows()

    def _sliding_window(self, layer: int) -> int:
        return self._windows[layer]

    def _read_windows(self) -> list[int]:
        """As `Qwen2Config` does: `layer_types`, else the layers from `max_window_layers` on have a window."""
        config = self._config
        window = config.integer_or_none("sliding_window", 4096)
        if window is None or not config.flag("use_sliding_window", default=False):
            return [0] * self.num_layers
        types = config.texts("layer_types", self.num_layers, (_FULL, _SLIDING))
        if types is None:
            first = config.integer("max_window_layers", 28)
            types = [_SLIDING if layer >= first else _FULL for layer in range(self.num_layers)]
        return [window if kind == _SLIDING else 0 for kind in types]
