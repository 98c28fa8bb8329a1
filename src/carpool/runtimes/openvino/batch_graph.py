"""A compiled encoder graph, and how a batch is laid on the threads."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, activation_rounding, compile_model, default_precision
from carpool.runtimes.openvino.input_tensors import InputTensors
from carpool.runtimes.openvino.packed_batch import PackedBatch
from carpool.runtimes.openvino.padded_batch import PaddedBatch

_LEAST_TOKENS_PER_THREAD = 48
"""In smaller batches all threads together are faster than each on its own."""
_LONGEST_PART = 1.1
"""Of a thread's share of the whole batch: what a cut may cost where lengths or their number do not divide."""
_MOST_BYTES_TWICE = 256 << 20
"""Weights above are held in one form only."""


class BatchLayout(Protocol):
    """How a batch's texts become a graph's inputs."""

    shares_rows: bool
    """Whether several texts may be in a row."""

    def size(self, lengths: Sequence[int]) -> int:
        """How much work texts of these lengths are, in tokens."""

    def cut(self, lengths: Sequence[int], count: int) -> list[list[int]]:
        """Indices in `count` parts, none empty, whose largest is small; there are as many lengths or more."""

    def inputs(
        self, texts: Sequence[Sequence[int]], seconds: Sequence[int] | None
    ) -> dict[str, NDArray[np.int32]]:
        """The arrays for token-id sequences; tokens from `seconds[index]` on are of type 1, others of 0."""


class BatchGraph:
    """A graph as `encoder_graph` makes it, compiled, for batches from one thread at a time.

    Small batches run on all threads together. In a large one, threads would wait for each other at the end of
    each of dozens of products, longest where other processes want the cores too; so a large batch is cut into
    a part for each thread, and only the ends of the parts are waited for.
    Raises `ModelFailed` for a precision that this CPU does not compute in.
    """

    def __init__(
        self, model: ov.Model, num_threads: int, precision: Precision | None, weights: WeightFormat
    ) -> None:
        if precision == "bf16" and default_precision() != "bf16":
            raise ModelFailed(
                "precision: bf16 needs a CPU with AMX or AVX512-BF16, which this one has not; leave it unset"
            )

        def runs(count: int) -> list[_Run]:
            properties = activation_rounding(precision or default_precision(), weights) | {
                "NUM_STREAMS": count
            }
            compiled = compile_model(
                model, num_threads=num_threads, precision=precision, properties=properties
            )
            return [_Run(compiled.create_infer_request()) for _ in range(count)]

        self._names = [node.get_any_name() for node in model.inputs]
        self._layout: BatchLayout = PackedBatch() if "text_ids" in self._names else PaddedBatch()
        [self._together] = runs(1)
        # The second form holds the weights once more; larger products gain less from it.
        is_small = _constant_bytes(model) <= _MOST_BYTES_TWICE
        self._by_thread = runs(num_threads) if num_threads > 1 and is_small else []
        self.computed_tokens = 0
        """So far, padding included."""
        for run in [self._together, *self._by_thread]:  # the plugin packs the weights at the first call
            run.start(self._inputs([[0, 0]], None, [0]))
            run.wait()

    def run(
        self, batch: Sequence[Sequence[int]], seconds: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """The output for token-id sequences; tokens from `seconds[row]` on are of type 1, others of 0."""
        parts = self._parts(list(map(len, batch)))
        runs = [self._together] if len(parts) == 1 else self._by_thread
        inputs = [self._inputs(batch, seconds, part) for part in parts]
        started = []
        try:
            for run, arrays in zip(runs, inputs, strict=True):
                run.start(arrays)
                started.append(run)
        finally:
            _wait(started)
        self.computed_tokens += sum(arrays["input_ids"].size for arrays in inputs)
        outputs = [run.output for run in runs]
        result = np.empty((len(batch), *outputs[0].shape[1:]), np.float32)
        for part, output in zip(parts, outputs, strict=True):
            result[part] = output
        broken = np.flatnonzero(~np.isfinite(result).all(axis=1)).tolist()
        if len(batch) > 1 and self._layout.shares_rows:
            for index in broken:  # NaN spreads to every text that shares the row: whose is it?
                result[index] = self.run([batch[index]], seconds and [seconds[index]])[0]
        return result

    def _parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """The batch's indices, together or in a part of about the same size for each thread."""
        whole = list(range(len(lengths)))
        count = len(self._by_thread)
        size = self._layout.size(lengths)
        if count == 0 or len(lengths) < count or size < count * _LEAST_TOKENS_PER_THREAD:
            return [whole]
        parts = self._layout.cut(lengths, count)
        largest = max(self._layout.size([lengths[index] for index in part]) for part in parts)
        return [whole] if largest * count > size * _LONGEST_PART else parts

    def _inputs(
        self, batch: Sequence[Sequence[int]], seconds: Sequence[int] | None, part: list[int]
    ) -> dict[str, NDArray[np.int32]]:
        arrays = self._layout.inputs(
            [batch[index] for index in part], seconds and [seconds[index] for index in part]
        )
        return {name: arrays[name] for name in self._names}


class _Run:
    """An inference request with its inputs and its output."""

    def __init__(self, request: ov.InferRequest) -> None:
        self._request = request
        self._inputs = InputTensors(request)

    def start(self, arrays: Mapping[str, NDArray[np.int32]]) -> None:
        """Start it, after the last one was waited for."""
        # Not `start_async(arrays)`: it binds every tensor anew, which takes an eighth of a short text's time.
        for name, values in arrays.items():
            self._inputs.write(name, values)
        self._request.start_async()

    def wait(self) -> None:
        """Until it has ended; raises `RuntimeError` where it failed."""
        self._request.wait()

    @property
    def output(self) -> NDArray[np.float32]:
        """What the last run gave, until the next one starts."""
        output: NDArray[np.float32] = self._request.get_output_tensor(0).data
        return output


def _wait(runs: Sequence[_Run]) -> None:
    """Until all have ended, so that the next batch finds them free; raises what the last to fail raised."""
    failure: RuntimeError | None = None
    for run in runs:
        try:
            run.wait()
        except RuntimeError as error:
            failure = error
    if failure is not None:
        raise failure


def _constant_bytes(model: ov.Model) -> int:
    return sum(node.get_byte_size() for node in model.get_ops() if node.get_type_name() == "Constant")
