"""Products of 8-bit activations and weights beside exact ones."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.runtimes.openvino.device import compile_model, default_precision, uses_matrix_units
from carpool.runtimes.openvino.rounded_product import can_round, rounded_linear

Floats = NDArray[np.float32]
ROWS, OUT = 40, 80

in_32_bits = pytest.mark.skipif(
    not {"avx512_vnni", "avx_vnni"} & set(Path("/proc/cpuinfo").read_text().split()),
    reason="takes a processor with VNNI; others saturate sums of two products at 16 bits",
)


def normal(*shape: int) -> Floats:
    return np.random.default_rng(3).standard_normal(shape, np.float32)


def product(weight: Floats) -> ov.CompiledModel:
    """Compiled as decoders are."""
    x = ops.parameter([-1, 1, weight.shape[1]], ov.Type.f32)
    model = ov.Model([rounded_linear(x, weight)], [x], "product")
    return compile_model(model, num_threads=1)


def error(rows: Floats, *, but_for: slice | None = None) -> float:
    """How far the product of normalised rows is from the exact one, in parts of its size.

    With `but_for`, in parts of the size it has without those features.
    """
    weight = normal(OUT, rows.shape[1])
    rows = rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True))
    found = product(weight)([rows[:, None]])[0][:, 0]
    difference = found - rows @ weight.T
    if but_for is not None:
        rows[:, but_for] = 0
    return float(np.sqrt(np.square(difference).mean() / np.square(rows @ weight.T).mean()))


@in_32_bits
@pytest.mark.parametrize("width", [32, 96, 576, 960])
def test_it_is_near_the_product(width: int) -> None:
    assert error(normal(ROWS, width)) < 0.03


@in_32_bits
@pytest.mark.parametrize("width", [96, 576])
def test_an_outlier_does_not_drown_the_others(width: int) -> None:
    rows = normal(ROWS, width)
    rows[:, 5] = 15
    assert error(rows, but_for=slice(5, 6)) < 0.05


@in_32_bits
@pytest.mark.parametrize("width", [96, 576, 960])
def test_a_single_feature_is_not_cut_off(width: int) -> None:
    rows = np.zeros((ROWS, width), np.float32)
    rows[:, 5] = 1
    assert error(rows) < 0.03


@in_32_bits
@pytest.mark.parametrize("width", [576, 960])
def test_neighbouring_outliers_are_not_cut_off(width: int) -> None:
    rows = normal(ROWS, width)
    rows[:, 64:72] = 12
    assert error(rows) < 0.03


@in_32_bits
@pytest.mark.parametrize("width", [576, 2048])
def test_what_features_have_in_common_does_not_add_up(width: int) -> None:
    assert error(1 + 0.1 * normal(ROWS, width)) < 0.03


def test_rows_do_not_depend_on_their_company() -> None:
    compiled = product(normal(OUT, 576))
    rows = normal(ROWS, 1, 576)
    together = np.array(compiled([rows])[0])
    for count in (5, 17, 32):
        np.testing.assert_array_equal(np.array(compiled([rows[:count]])[0]), together[:count])


@pytest.mark.parametrize("width", [576, 896, 960, 1536, 2048, 2560, 3072, 4096])
def test_the_widths_of_models_can_be_rounded(width: int) -> None:
    assert can_round(width)


@pytest.mark.parametrize("width", [578, 1001, 1002, 8192])
def test_widths_whose_blocks_spread_too_little_cannot(width: int) -> None:
    assert not can_round(width)


@pytest.mark.skipif(not uses_matrix_units(default_precision()), reason="takes a processor with AMX")
def test_matrix_units_multiply_integers() -> None:
    compiled = product(normal(OUT, 576))
    compiled([normal(ROWS, 1, 576)])  # kernels are chosen when the shape is known
    nodes = compiled.get_runtime_model().get_ordered_ops()
    assert "brgemm_avx512_amx_i8" in [node.get_rt_info()["primitiveType"].astype(str) for node in nodes]
