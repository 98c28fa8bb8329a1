"""Mistral as an OpenVINO graph: Llama whose tokens may attend to a window only.

The architecture is that of Jiang et al., https://arxiv.org/abs/2310.06825, with the tensor names of Hugging
Face's `MistralForCausalLM`.
"""

from carpool.models.checkpoint import Checkpoint
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision
from carpool.runtimes.openvino.llama import Llama


class Mistral(Llama):
    """Llama's layers, all with the same sliding window; null means none."""

    def __init__(
        self, checkpoint: Checkpoint, weights: WeightFormat, precision: Precision, num_threads: int
    ) -> None:
        super().__init__(checkpoint, weights, precision, num_threads)
        self._window = self._config.integer_or_none("sliding_window", 4096) or 0

    def _sliding_window(self, layer: int) -> int:  # noqa: ARG002  # all are the same
        return self._window
