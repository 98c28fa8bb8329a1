"""The CPU as OpenVINO's device: what it can do, and how graphs are compiled for it."""

import functools
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import openvino as ov

from carpool.errors import ModelFailed
from carpool.runtimes.openvino.config import WeightFormat

Precision = Literal["f32", "bf16"]

_HAVE_8_BITS = {WeightFormat.INT8, WeightFormat.MIXED}
_WHOLE_TOKEN = 1 << 31
"""More features than a token has anywhere."""
_GROUP = 64
"""Activations that share a scale where there are no matrix units; a common divisor of models' widths."""

# The binding makes its table of types when it is first asked for one. Two threads that load models and ask at
# the same time wait for each other for ever, and one of them has the GIL; an import is one thread's.
ov.Type.f32.to_dtype()


@functools.cache
def core() -> ov.Core:
    """The process's one OpenVINO core."""
    return ov.Core()


def default_precision() -> Precision:
    """bf16 where the CPU computes in it natively (AMX or AVX512-BF16), f32 elsewhere."""
    return "bf16" if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def has_matrix_units() -> bool:
    """Whether the CPU has AMX."""
    return "amx_int8" in _features()


def has_wide_vectors() -> bool:
    """Whether the CPU has AVX-512."""
    return "avx512f" in _features()


@functools.cache
def _features() -> set[str]:
    with open("/proc/cpuinfo") as cpuinfo:
        return set(cpuinfo.read().split())


def uses_matrix_units(precision: Precision) -> bool:
    """Whether what is computed in `precision` is multiplied by AMX."""
    return precision == "bf16" and has_matrix_units()


def activation_rounding(precision: Precision, weights: WeightFormat) -> dict[str, Any]:
    """How the plugin rounds what quantised weights are multiplied with, in a model computed in `precision`.

    The property is how many activations share a scale when they are rounded to 8 bits too; 0 rounds none.
    Where bf16 has matrix units, rounding pays only with 8-bit weights and one scale per token, which takes
    kernels that are 8-bit throughout. Vector units that know bf16 multiply 8 bits twice as fast. Elsewhere
    the plugin's own choice is left. Decision 001 has the measurements.
    """
    if precision != "bf16":
        return {}
    group = 0 if weights not in _HAVE_8_BITS else _WHOLE_TOKEN if has_matrix_units() else _GROUP
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group}


class AlikeRows(NamedTuple):
    """Between which numbers of rows of activations a row's products have the same digits."""

    least: int
    most: int


def rows_that_round_alike(precision: Precision, weights: WeightFormat) -> AlikeRows:
    """Between which numbers of rows the products of a model computed in `precision` round alike.

    Seen of the plugin's kernels; the tests of seeds would show it if they changed. Where they unpack
    quantised weights, few rows take others. With AVX2 alone, so do more than 80, and more than 64 where the
    number of outputs is no multiple of 16, as vocabularies may have it. 64 leaves the other products room for
    the rows that `padded` adds.
    """
    if precision == "bf16":
        few_rows_differ = weights is WeightFormat.INT4 or (weights in _HAVE_8_BITS and has_matrix_units())
        return AlikeRows(5 if few_rows_differ else 2, sys.maxsize)
    is_quantised = weights is WeightFormat.INT4 or weights in _HAVE_8_BITS
    return AlikeRows(5, 64) if is_quantised and not has_wide_vectors() else AlikeRows(2, sys.maxsize)


def real_threads(num_threads: int) -> int:
    """How many threads the plugin makes where it is given a budget: none without a core that it may use."""
    return min(num_threads, len(os.sched_getaffinity(0)))


def compile_model(
    model: ov.Model,
    *,
    num_threads: int,
    precision: Precision | None = None,
    properties: Mapping[str, Any] | None = None,
) -> ov.CompiledModel:
    """Compile for one request at a time on `num_threads` threads; `precision` None: `default_precision()`.

    `properties` are further ones of the CPU plugin. Raises `ModelFailed` for what the plugin refuses.
    """
    settings = {
        "INFERENCE_NUM_THREADS": num_threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision or default_precision(),
        **(properties or {}),
    }
    try:
        return core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelFailed(f"OpenVINO cannot compile {model.get_friendly_name()}: {reason}") from error
