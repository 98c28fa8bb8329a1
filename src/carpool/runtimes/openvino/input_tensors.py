"""The small inputs of an inference request that is run again and again."""

from typing import Any

import openvino as ov
from numpy.typing import NDArray


class InputTensors:
    """Writes arrays to inputs of a request by their names.

    A tensor is bound once, and another shape is given to it where it is: to bind another costs 50 us and more
    after a forward pass has emptied the caches, which is more than the copy.
    """

    def __init__(self, request: ov.InferRequest) -> None:
        self._request = request
        self._places = {port.any_name: place for place, port in enumerate(request.model_inputs)}
        self._tensors: dict[str, ov.Tensor] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        """Views of the tensors in their present shapes."""

    def write(self, name: str, values: NDArray[Any]) -> None:
        """Set an input to a copy of `values`, of its element type. No run of the request may be in flight."""
        tensor = self._tensors.get(name)
        if tensor is None:
            tensor = ov.Tensor(values)
            self._request.set_input_tensor(self._places[name], tensor)
            self._tensors[name], self._arrays[name] = tensor, tensor.data
            return
        if self._arrays[name].shape != values.shape:
            tensor.shape = values.shape
            self._arrays[name] = tensor.data
        self._arrays[name][...] = values
