import numpy as np
import pytest

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat
from carpool.models.dequantize import dequantize


def test_bf16_is_the_upper_half_of_float32() -> None:
    values = np.array([[1.0, -2.5], [0.0, np.inf]], np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    tensor = Tensor("t", TensorFormat.BF16, (2, 2), data)
    result = dequantize(tensor)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, values)


def test_f16_and_scalars() -> None:
    data = np.array([[0.5]], np.float16).view(np.uint8)
    result = dequantize(Tensor("t", TensorFormat.F16, (), data))
    assert result.shape == ()
    assert result == 0.5


def test_integers_are_refused() -> None:
    with pytest.raises(ModelFailed, match="'t' holds integers"):
        dequantize(Tensor("t", TensorFormat.I64, (1,), np.zeros((1, 8), np.uint8)))
