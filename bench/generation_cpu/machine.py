"""The machine: whether it is idle, and how fast it is with as many threads as the model gets."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from bench.generation_cpu.workload import THREADS
from carpool.runtimes.openvino.device import compile_model, default_precision

_SIDE = 2048
_PASSES = 5
_LOOK_S = 0.25
_BUSY_CORES = 0.2
"""What else the system does on an idle machine, in cores."""
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Best of some passes each: what it can do when nothing else runs."""

    bandwidth: float
    """Bytes read from memory per second."""
    matrix_rate: float
    """Operations per second of large products, in the precision that OpenVINO chooses here."""
    numpy_rate: float
    """f32 operations per second of NumPy's products at the model's shapes, 32 rows."""


def results_suffix() -> str:
    """Of the names of results: where the processor computes in f32, little of the others' holds."""
    return "" if default_precision() == "bf16" else "_f32"


def wait_until_idle() -> bool:
    """Return when nothing computes any more; whether it is so.

    Some engines' threads spin for up to a second after a run, on the cores of whoever runs next. A machine
    that does not get idle within 10 s is taken as it is.
    """
    cores = os.cpu_count() or 1
    give_up_at = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up_at:
        before = _idle_s()
        time.sleep(_LOOK_S)
        if (_idle_s() - before) / _LOOK_S > cores - _BUSY_CORES:
            return True
    return False


def _idle_s() -> float:
    """Seconds that all cores together have done nothing in since the system's start."""
    with open("/proc/stat") as stat:
        _, _, _, _, idle, waiting, *_ = stat.readline().split()
    return (int(idle) + int(waiting)) / os.sysconf("SC_CLK_TCK")


def measure_machine(shapes: Sequence[tuple[int, int]]) -> Machine:
    """`shapes` are the [in, out] of all products of a step."""
    return Machine(_bandwidth(), _matrix_rate(), _numpy_rate(shapes, rows=32))


def _bandwidth() -> float:
    """NumPy's maximum over 256 MiB a thread."""
    parts = np.ones((THREADS, 1 << 26), np.float32)
    with ThreadPoolExecutor(THREADS) as threads:
        return parts.nbytes / _best(lambda: list(threads.map(np.max, parts)))


def _matrix_rate() -> float:
    """OpenVINO's product of two matrices large enough to hide everything else."""
    matrix = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), np.float32)
    x = ops.parameter([-1, _SIDE], ov.Type.f32)
    model = ov.Model([ops.result(ops.matmul(x, ops.constant(matrix), False, True))], [x], "product")
    request = compile_model(model, num_threads=THREADS).create_infer_request()
    return 2 * _SIDE**3 / _best(lambda: request.infer([matrix]))


def _numpy_rate(shapes: Sequence[tuple[int, int]], rows: int) -> float:
    """Each product has weights of its own, as in the model, so they come from memory."""
    held = [np.ones(shape, np.float32) for shape in shapes]
    inputs = {size: np.ones((rows, size), np.float32) for size, _ in shapes}
    seconds = _best(lambda: [inputs[len(weight)] @ weight for weight in held])
    return 2 * rows * sum(weight.size for weight in held) / seconds


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest pass; a first one is not counted."""
    run()
    seconds = []
    for _ in range(_PASSES):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
