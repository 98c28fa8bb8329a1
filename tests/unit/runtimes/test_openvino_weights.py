"""What a weight matrix holds after it was put into a graph."""

from pathlib import Path

import gguf
import numpy as np
import openvino as ov
import pytest
from gguf.quants import quantize
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, TensorFormat
from carpool.models.dequantize import dequantize
from carpool.models.open import open_checkpoint
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import compile_model
from carpool.runtimes.openvino.weights import matrix

ROWS, COLUMNS = 48, 96
VALUES = np.random.default_rng(1).normal(0, 1, (ROWS, COLUMNS)).astype(np.float32)
VALUES[5] = 0
VALUES[6, :32] = 0.25


def tensor(format_: TensorFormat, values: NDArray[np.float32] = VALUES) -> Tensor:
    data = quantize(values, gguf.GGMLQuantizationType[format_])
    return Tensor("w", format_, values.shape, np.ascontiguousarray(data).view(np.uint8))


def held(stored: Tensor, weights: WeightFormat) -> NDArray[np.float32]:
    """The matrix as the compiled product with the unit vectors shows it."""
    x = ops.parameter([-1, stored.shape[1]], ov.Type.f32)
    model = ov.Model([ops.matmul(x, matrix(stored, weights), False, True)], [x], "product")
    product = compile_model(model, num_threads=1, precision="f32")(
        [np.eye(stored.shape[1], dtype=np.float32)]
    )
    return np.asarray(product[0]).T


@pytest.mark.parametrize(
    "format_", [TensorFormat.Q4_0, TensorFormat.Q4_1, TensorFormat.Q8_0, TensorFormat.Q5_1, TensorFormat.F16]
)
def test_f32_is_what_is_stored(format_: TensorFormat) -> None:
    stored = tensor(format_)
    np.testing.assert_allclose(held(stored, WeightFormat.F32), dequantize(stored), atol=1e-6)


def steps(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What one step of 4 bits is in each group, for each element."""
    groups = values.reshape(len(values), -1, 32)
    return np.repeat((groups.max(axis=2) - groups.min(axis=2)) / 15, 32, axis=1)


def test_int4_keeps_symmetric_blocks_exactly() -> None:
    stored = tensor(TensorFormat.Q4_0)
    np.testing.assert_allclose(held(stored, WeightFormat.INT4), dequantize(stored), atol=2e-6)


@pytest.mark.parametrize("values", [VALUES, VALUES + 0.5, VALUES + 1000], ids=["at 0", "beside 0", "far off"])
def test_int4_keeps_blocks_with_a_minimum_to_a_128th_of_a_step(values: NDArray[np.float32]) -> None:
    stored = tensor(TensorFormat.Q4_1, values)
    errors = np.abs(held(stored, WeightFormat.INT4) - dequantize(stored))
    assert (errors <= steps(dequantize(stored)) / 100 + 2e-6 * np.abs(values)).all()


@pytest.mark.model
def test_the_starters_own_blocks_are_kept(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    for name in ("model.layers.3.self_attn.k_proj.weight", "model.layers.29.mlp.down_proj.weight"):
        stored = checkpoint.tensor(name)
        assert stored.format is TensorFormat.Q4_1
        exact = dequantize(stored)
        assert (np.abs(held(stored, WeightFormat.INT4) - exact) <= steps(exact) / 100 + 1e-6).all()


def test_int4_rounds_floats_by_at_most_half_a_step_of_their_group() -> None:
    errors = np.abs(held(tensor(TensorFormat.F32), WeightFormat.INT4) - VALUES)
    assert (errors <= steps(VALUES) * 0.52 + 1e-6).all()  # half of it, and the scale in f16


@pytest.mark.parametrize("size", [1e-7, 1e6], ids=str)
def test_int4_of_floats_beyond_the_scales_of_f16(size: float) -> None:
    values = (VALUES * size).astype(np.float32)
    errors = np.abs(held(tensor(TensorFormat.F32, values), WeightFormat.INT4) - values)
    assert (errors <= steps(values) * 0.52).all()


@pytest.mark.parametrize(
    ("weights", "stored"),
    [
        (WeightFormat.INT8, tensor(TensorFormat.F32)),
        (WeightFormat.INT4, tensor(TensorFormat.F32, np.ascontiguousarray(VALUES[:, :40]))),
        (WeightFormat.INT4, tensor(TensorFormat.Q8_0)),
    ],
    ids=["asked for", "not in groups", "stored in 8 bits"],
)
def test_int8_rounds_by_at_most_half_a_step_of_its_row(weights: WeightFormat, stored: Tensor) -> None:
    values = dequantize(stored)
    errors = np.abs(held(stored, weights) - values)
    assert (errors.max(axis=1) <= np.abs(values).max(axis=1) / 254 + 1e-6).all()


def test_bf16_rounds_to_nearest() -> None:
    errors = np.abs(held(tensor(TensorFormat.F32), WeightFormat.BF16) - VALUES)
    assert (errors <= np.abs(VALUES) * 2**-8 + 1e-7).all()
    assert errors.max() > 0


def test_integers_are_no_weights() -> None:
    ids = Tensor("position_ids", TensorFormat.I64, (1, 4), np.zeros((1, 32), np.uint8))
    with pytest.raises(ModelFailed, match="position_ids"):
        matrix(ids, WeightFormat.F32)
