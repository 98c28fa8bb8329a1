"""A compiled encoder graph, and which threads compute a batch."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.runtimes.openvino import huge_pages
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, activation_rounding, compile_model, default_precision
from carpool.runtimes.openvino.input_tensors import InputTensors
from carpool.runtimes.openvino.packed_batch import PackedBatch
from carpool.runtimes.openvino.padded_batch import PaddedBatch
from carpool.runtimes.openvino.row_cost import row_cost

_MOST_BYTES_TWICE = 256 << 20
"""Weights above are held in one form only."""


class BatchLayout(Protocol):
    """How a batch's texts become a graph's inputs."""

    shares_rows: bool
    """Whether several texts may be in a row."""

    def inputs(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int] | None
    ) -> dict[str, NDArray[np.int32]]:
        """The arrays for token-id sequences; tokens from `seconds[index]` on are of type 1, others of 0."""


class BatchGraph:
    """A graph as `encoder_graph` makes it, compiled, for batches from up to `concurrency` threads at a time.

    Each batch is computed by one thread. Threads that share a batch wait for each other at the end of each of
    dozens of products, longest where other processes want the cores too; so a small model takes as many
    batches at a time as it has threads, and a single text that finds nobody else is computed by all of them.
    Raises `ModelFailed` for a precision that this CPU does not compute in.
    """

    def __init__(
        self,
        model: ov.Model,
        num_threads: int,
        precision: Precision,
        weights: WeightFormat,
        max_tokens: int,
    ) -> None:
        """`max_tokens`: of the longest input. Padding stays within it: there may be no further positions."""
        if precision == "bf16" and default_precision() != "bf16":
            raise ModelFailed(
                "precision: bf16 needs a CPU with AMX or AVX512-BF16, which this one has not; leave it unset"
            )

        def runs(count: int) -> list[_Run]:
            properties = activation_rounding(precision, weights) | {"NUM_STREAMS": count}
            compiled = compile_model(
                model, num_threads=num_threads, precision=precision, properties=properties
            )
            return [_Run(compiled.create_infer_request()) for _ in range(count)]

        self._names = [node.get_any_name() for node in model.inputs]
        costs = row_cost(precision)
        self._layout: BatchLayout = (
            PackedBatch(costs) if "text_ids" in self._names else PaddedBatch(costs, max_tokens)
        )
        [self._together] = runs(1)
        # The second form holds the weights once more; larger products gain less from it.
        is_small = _constant_bytes(model) <= _MOST_BYTES_TWICE
        self._runs = runs(num_threads) if num_threads > 1 and is_small else [self._together]
        self._free = list(self._runs)
        self._freed = threading.Condition()
        self._computed_tokens = 0
        for run in {self._together, *self._runs}:  # the plugin packs the weights at the first call
            run(self._inputs([[0, 0]], None))
        huge_pages.collapse()

    @property
    def concurrency(self) -> int:
        """Batches that are computed at a time."""
        return len(self._runs)

    @property
    def pads(self) -> bool:
        """Whether each text has a row of its own, as long as the longest."""
        return not self._layout.shares_rows

    @property
    def computed_tokens(self) -> int:
        """So far, padding included."""
        return self._computed_tokens

    def run(
        self, batch: Sequence[Sequence[int]], seconds: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """The output for token-id sequences; tokens from `seconds[row]` on are of type 1, others of 0."""
        inputs = self._inputs(batch, seconds)
        with self._free_run(is_single=len(batch) == 1) as run:
            result = run(inputs)
        with self._freed:
            self._computed_tokens += inputs["input_ids"].size
        if len(batch) > 1 and self._layout.shares_rows and not np.isfinite(result).all():
            # NaN spreads to every text that shares the row: whose is it?
            for index in np.flatnonzero(~np.isfinite(result).all(axis=1)).tolist():
                result[index] = self.run([batch[index]], seconds and [seconds[index]])[0]
        return result

    @contextmanager
    def _free_run(self, *, is_single: bool) -> Iterator["_Run"]:
        """Wait for threads, and keep them for the length of the block."""
        with self._freed:
            self._freed.wait_for(lambda: self._free)
            takes_all = is_single and len(self._free) == len(self._runs)
            run = self._together if takes_all else self._free[-1]
            taken = list(self._free) if takes_all else [run]
            self._free = [each for each in self._free if each not in taken]
        try:
            yield run
        finally:
            with self._freed:
                self._free += taken
                self._freed.notify_all()

    def _inputs(
        self, batch: Sequence[Sequence[int]], seconds: Sequence[int] | None
    ) -> dict[str, NDArray[np.int32]]:
        arrays = self._layout.inputs(batch, seconds)
        return {name: arrays[name] for name in self._names}


class _Run:
    """An inference request with its inputs."""

    def __init__(self, request: ov.InferRequest) -> None:
        self._request = request
        self._inputs = InputTensors(request)

    def __call__(self, arrays: Mapping[str, NDArray[np.int32]]) -> NDArray[np.float32]:
        """The output. Raises `RuntimeError` where the run failed."""
        # Not `infer(arrays)`: it binds every tensor anew, which takes an eighth of a short text's time.
        for name, values in arrays.items():
            self._inputs.write(name, values)
        self._request.start_async()
        self._request.wait()
        output: NDArray[np.float32] = self._request.get_output_tensor(0).data
        return output.copy()  # the next run overwrites it


def _constant_bytes(model: ov.Model) -> int:
    return sum(node.get_byte_size() for node in model.get_ops() if node.get_type_name() == "Constant")
