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


@pytest.mark.parametrize("format_", [TensorFormat.Q4_0, TensorFormat.Q4_1, TensorFormat.Q8_0])
def test_int4_keeps_stored_blocks_exactly(format_: TensorFormat) -> None:
    stored = tensor(format_)
    np.testing.assert_allclose(held(stored, WeightFormat.INT4), dequantize(stored), atol=2e-6)


@pytest.mark.model
def test_the_starters_own_blocks_are_kept(smollm2_path: Path) -> None:
    checkpoint = open_checkpoint(smollm2_path)
    for name in ("model.layers.3.self_attn.k_proj.weight", "model.layers.29.mlp.down_proj.weight"):
        stored = checkpoint.tensor(name)
        assert stored.format is TensorFormat.Q4_1
        np.testing.assert_allclose(held(stored, WeightFormat.INT4), dequantize(stored), atol=1e-6)


def test_int4_rounds_floats_by_at_most_half_a_step_of_their_group() -> None:
    groups = VALUES.reshape(ROWS, -1, 32)
    steps = (groups.max(axis=2) - groups.min(axis=2)) / 15
    errors = np.abs(held(tensor(TensorFormat.F32), WeightFormat.INT4) - VALUES).reshape(ROWS, -1, 32)
    assert (errors.max(axis=2) <= steps / 2 + 1e-6).all()


@pytest.mark.parametrize("weights", [WeightFormat.INT8, WeightFormat.INT4])
def test_int8_rounds_by_at_most_half_a_step_of_its_row(weights: WeightFormat) -> None:
    """Rows that do not divide into groups are held in int8 where int4 was asked for."""
    values = VALUES if weights is WeightFormat.INT8 else np.ascontiguousarray(VALUES[:, :40])
    errors = np.abs(held(tensor(TensorFormat.F32, values), weights) - values)
    assert (errors.max(axis=1) <= np.abs(values).max(axis=1) / 254 + 1e-6).all()


def test_bf16_rounds_to_nearest() -> None:
    errors = np.abs(held(tensor(TensorFormat.F32), WeightFormat.BF16) - VALUES)
    assert (errors <= np.abs(VALUES) * 2**-8 + 1e-7).all()
    assert errors.max() > 0


def test_integers_are_no_weights() -> None:
    ids = Tensor("position_ids", TensorFormat.I64, (1, 4), np.zeros((1, 32), np.uint8))
    with pytest.raises(ModelFailed, match="position_ids"):
        matrix(ids, WeightFormat.F32)
