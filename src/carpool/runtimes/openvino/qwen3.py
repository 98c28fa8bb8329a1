"""Qwen3 as an OpenVINO graph: Qwen2 whose queries and keys are normalised head by head.

The architecture is that of Yang et al., https://arxiv.org/abs/2505.09388, with the tensor names of Hugging
Face's `Qwen3ForCausalLM`.
"""

import openvino as ov

from carpool.runtimes.openvino.qwen2 import Qwen2


class Qwen3(Qwen2):
    """Qwen2's layers, without biases, with a norm of each head before the rotation."""

    def _heads(self, x: ov.Output, name: str, num_heads: int) -> ov.Node:
        return self._norm(super()._heads(x, name, num_heads), f"{name}_norm")
