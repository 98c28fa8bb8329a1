"""The CPU as OpenVINO's device: what it can do, and how graphs are compiled for it."""

import functools
from collections.abc import Mapping
from typing import Any, Literal

import openvino as ov

from carpool.errors import ModelFailed

Precision = Literal["f32", "bf16"]


@functools.cache
def core() -> ov.Core:
    """The process's one OpenVINO core."""
    return ov.Core()


def default_precision() -> Precision:
    """bf16 where the CPU computes in it natively (AMX or AVX512-BF16), f32 elsewhere."""
    return "bf16" if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


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
