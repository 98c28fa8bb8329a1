"""Logits that the plugin leaves in bf16, as it computes them."""

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.runtimes.openvino.device import compile_model

_INFINITY = 0x7F80
"""Its bits in bf16; those of a NaN are larger: without a sign than these, with one than minus infinity's."""
_MINUS_INFINITY = 0xFF80


def bits_of(tensor: ov.Tensor) -> NDArray[np.int16]:
    """The bits of a tensor of bf16, a type that NumPy has not; a view."""
    bits: NDArray[np.int16] = tensor.data.view(np.int16)
    return bits


def likeliest(bits: NDArray[np.int16]) -> list[int] | None:
    """The first of the largest values of each row of bf16 bits [rows, size].

    Read as integers, the bits of numbers above zero have the numbers' order and come after all others, and
    two passes over half the bytes are all there is to do. None if that does not settle it: where a row has
    nothing above zero, its largest is infinite, or it has a NaN.
    """
    places = bits.argmax(axis=1)
    largest = bits[np.arange(len(bits)), places]
    settled = (largest > 0) & (largest < _INFINITY) & (bits.view(np.uint16).max(axis=1) <= _MINUS_INFINITY)
    return places.tolist() if settled.all() else None


class Widening:
    """bf16 to float32, on all threads."""

    def __init__(self, *, num_threads: int) -> None:
        """Raises `ModelFailed` if the graph cannot be compiled."""
        half = ops.parameter([-1, -1], ov.Type.bf16)
        model = ov.Model([ops.convert(half, "f32")], [half], "widening")
        self._request = compile_model(model, num_threads=num_threads, precision="f32").create_infer_request()

    def __call__(self, tensor: ov.Tensor) -> NDArray[np.float32]:
        """The numbers of a tensor [rows, size], in memory that the next call overwrites."""
        self._request.set_input_tensor(0, tensor)
        self._request.infer()
        wide: NDArray[np.float32] = self._request.get_output_tensor(0).data
        return wide
