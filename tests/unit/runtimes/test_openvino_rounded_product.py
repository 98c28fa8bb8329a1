"""Products of 8-bit activations and weights beside exact ones."""

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset15 as ops

from carpool.runtimes.openvino.device import Precision, compile_model, default_precision, uses_matrix_units
from carpool.runtimes.openvino.rounded_product import can_round, rounded_linear

Floats = NDArray[np.float32]
ROWS, OUT = 40, 80
RNG = np.random.default_rng(3)


def normalised(rows: Floats) -> Floats:
    """With a mean square of 1 in each row."""
    result: Floats = rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True))
    return result


def compiled(weight: Floats, precision: Precision = "f32") -> ov.CompiledModel:
    x = ops.parameter([-1, 1, weight.shape[1]], ov.Type.f32)
    model = ov.Model([rounded_linear(x, weight)], [x], "product")
    return compile_model(model, num_threads=1, precision=precision)


def error(rows: Floats, weight: Floats) -> float:
    """The size of the difference to the exact product, in parts of the product's."""
    found = compiled(weight)([rows[:, None]])[0][:, 0]
    exact = rows @ weight.T
    return float(np.sqrt(np.square(found - exact).mean() / np.square(exact).mean()))


@pytest.mark.parametrize("width", [32, 96, 576, 960])
def test_it_is_near_the_product(width: int) -> None:
    weight = RNG.standard_normal((OUT, width), np.float32)
    assert error(normalised(RNG.standard_normal((ROWS, width), np.float32)), weight) < 0.02


@pytest.mark.parametrize("height", [15, 1000], ids=["beside others", "all of the energy"])
@pytest.mark.parametrize("width", [96, 576])
def test_an_outlier_is_neither_cut_off_nor_drowns_the_others(width: int, height: float) -> None:
    weight = RNG.standard_normal((OUT, width), np.float32)
    rows = RNG.standard_normal((ROWS, width), np.float32)
    rows[:, 5] = height
    assert error(normalised(rows), weight) < 0.03


def test_rows_do_not_depend_on_their_company() -> None:
    weight = RNG.standard_normal((OUT, 576), np.float32)
    rows = normalised(RNG.standard_normal((ROWS, 576), np.float32))[:, None]
    product = compiled(weight)
    together = np.array(product([rows])[0])
    for count in (5, 17, 32):
        np.testing.assert_array_equal(np.array(product([rows[:count]])[0]), together[:count])


@pytest.mark.parametrize("width", [576, 960, 1536, 2048, 3072, 4096, 896, 2560])
def test_the_widths_of_models_can_be_rounded(width: int) -> None:
    assert can_round(width)


@pytest.mark.parametrize("width", [1001, 34 * 17, 1002])
def test_widths_that_no_rotation_spreads_cannot(width: int) -> None:
    assert not can_round(width)


@pytest.mark.skipif(not uses_matrix_units(default_precision()), reason="takes a processor with AMX")
def test_matrix_units_multiply_integers() -> None:
    product = compiled(RNG.standard_normal((OUT, 576), np.float32), "bf16")
    product([np.ones((ROWS, 1, 576), np.float32)])  # kernels are chosen when the shape is known
    nodes = product.get_runtime_model().get_ordered_ops()
    assert "brgemm_avx512_amx_i8" in [node.get_rt_info()["primitiveType"].astype(str) for node in nodes]
