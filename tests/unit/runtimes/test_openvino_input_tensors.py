"""Inputs of a request that is run again and again."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as ops

from carpool.runtimes.openvino.input_tensors import InputTensors


@pytest.fixture
def request_() -> ov.InferRequest:
    """Computes `first - second`, of any length."""
    first, second = (ops.parameter([-1], ov.Type.i32, name=name) for name in ("first", "second"))
    for node in (first, second):
        node.output(0).set_names({node.friendly_name})
    model = ov.Model([ops.subtract(first, second)], [first, second], "difference")
    return ov.compile_model(model, "CPU").create_infer_request()


def test_inputs_are_told_apart_and_may_change_their_length(request_: ov.InferRequest) -> None:
    inputs = InputTensors(request_)
    for length in (3, 3, 5, 2, 2):
        first, second = np.arange(length) * length, np.ones(length, np.int64)
        inputs.write("second", second.astype(np.int32))
        inputs.write("first", first.astype(np.int32))
        request_.infer()
        assert request_.get_output_tensor(0).data.tolist() == (first - second).tolist()


def test_what_is_written_is_a_copy(request_: ov.InferRequest) -> None:
    inputs = InputTensors(request_)
    first = np.array([5, 6], np.int32)
    inputs.write("second", np.zeros(2, np.int32))
    for _ in range(2):  # the first time binds a tensor, the second fills it
        inputs.write("first", first)
        first += 1
        request_.infer()
        assert request_.get_output_tensor(0).data.tolist() == (first - 1).tolist()


def test_an_unknown_input_is_an_error(request_: ov.InferRequest) -> None:
    with pytest.raises(KeyError, match="third"):
        InputTensors(request_).write("third", np.zeros(1, np.int32))
