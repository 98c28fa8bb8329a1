"""A compiled encoder graph, and how a batch is laid on the threads."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from carpool.errors import ModelFailed
from carpool.runtimes.openvino.config import WeightFormat
from carpool.runtimes.openvino.device import Precision, activation_rounding, compile_model, default_precision

_LEAST_TOKENS_PER_THREAD = 128
"""In smaller batches all threads together are faster than each on its own."""
_LONGEST_PART = 1.1
"""Of a thread's share of the whole batch: what a cut may cost where lengths or their number do not divide."""
_MOST_BYTES_TWICE = 256 << 20
"""Weights above are held in one form only."""


class _Rows(NamedTuple):
    """What goes into a graph: padded token-id sequences."""

    inputs: dict[str, NDArray[np.int32]]
    indices: list[int]
    """Their places in the batch."""


class BatchGraph:
    """A graph as `encoder_graph` makes it, compiled, for batches from one thread at a time.

    Small batches run on all threads together. In a large one, threads would wait for each other at the end of
    each of dozens of products, longest where other processes want the cores too; so a large batch is cut by
    length into a part for each thread, and only the ends of the parts are waited for. That also pads less.
    Raises `ModelFailed` for a precision that this CPU does not compute in.
    """

    def __init__(
        self, model: ov.Model, num_threads: int, precision: Precision | None, weights: WeightFormat
    ) -> None:
        if precision == "bf16" and default_precision() != "bf16":
            raise ModelFailed(
                "precision: bf16 needs a CPU with AMX or AVX512-BF16, which this one has not; leave it unset"
            )

        def requests(count: int) -> list[ov.InferRequest]:
            properties = activation_rounding(precision or default_precision(), weights) | {
                "NUM_STREAMS": count
            }
            compiled = compile_model(
                model, num_threads=num_threads, precision=precision, properties=properties
            )
            return [compiled.create_infer_request() for _ in range(count)]

        self._has_types = any("token_type_ids" in node.get_names() for node in model.inputs)
        [self._request] = requests(1)
        # The second form holds the weights once more; larger products gain less from it.
        is_small = _constant_bytes(model) <= _MOST_BYTES_TWICE
        self._by_thread = requests(num_threads) if num_threads > 1 and is_small else []
        self.computed_tokens = 0
        """So far, padding included."""
        for request in [self._request, *self._by_thread]:  # the plugin packs the weights at the first call
            request.infer(self._rows([[0, 0]], None, [0]).inputs)

    def run(
        self, batch: Sequence[Sequence[int]], seconds: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        """The output for token-id sequences; tokens from `seconds[row]` on are of type 1, others of 0."""
        parts = [self._rows(batch, seconds, part) for part in self._parts(list(map(len, batch)))]
        requests = [self._request] if len(parts) == 1 else self._by_thread
        for request, part in zip(requests, parts, strict=True):
            # Without share_inputs: with it, OpenVINO 2026.4.1 corrupts the heap as shapes change.
            request.start_async(part.inputs)
        _wait(requests)
        outputs = [request.get_output_tensor(0).data for request in requests]
        result = np.empty((len(batch), *outputs[0].shape[1:]), np.float32)
        for part, output in zip(parts, outputs, strict=True):
            result[part.indices] = output
            self.computed_tokens += part.inputs["input_ids"].size
        return result

    def _parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """The batch's indices, together or in a part for each thread, of about the same size with padding."""
        whole = list(range(len(lengths)))
        count = len(self._by_thread)
        size = len(lengths) * max(lengths)
        if count == 0 or len(lengths) < count or size < count * _LEAST_TOKENS_PER_THREAD:
            return [whole]
        by_length = sorted(whole, key=lengths.__getitem__)
        parts = balanced_parts([lengths[index] for index in by_length], count)
        largest = max((end - start) * lengths[by_length[end - 1]] for start, end in parts)
        if largest * count > size * _LONGEST_PART:
            return [whole]
        return [by_length[start:end] for start, end in parts]

    def _rows(
        self, batch: Sequence[Sequence[int]], seconds: Sequence[int] | None, indices: list[int]
    ) -> _Rows:
        shape = (len(indices), max(len(batch[index]) for index in indices))
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self._has_types else [])]
        inputs = {name: np.zeros(shape, np.int32) for name in names}
        for row, index in enumerate(indices):
            length = len(batch[index])
            inputs["input_ids"][row, :length] = batch[index]
            inputs["attention_mask"][row, :length] = 1
            if self._has_types and seconds is not None:
                inputs["token_type_ids"][row, seconds[index] : length] = 1
        return _Rows(inputs, indices)


def balanced_parts(lengths: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Cut ascending lengths into `count` ranges, none empty, so that the largest is small with padding.

    A range's size is its rows times its longest. The bound on it is found by bisection; a range takes as many
    rows as fit. `lengths` has at least `count` elements, all above 0.
    """

    def cut(bound: int) -> list[tuple[int, int]] | None:
        ranges = []
        start = 0
        for left in range(count - 1, -1, -1):
            end = start + 1
            while end < len(lengths) - left and (end + 1 - start) * lengths[end] <= bound:
                end += 1
            if (end - start) * lengths[end - 1] > bound:
                return None
            ranges.append((start, end))
            start = end
        return ranges if start == len(lengths) else None

    low, high = 1, len(lengths) * lengths[-1]
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cut(middle) else (middle + 1, high)
    return cut(low) or []


def _wait(requests: Sequence[ov.InferRequest]) -> None:
    """Until all have ended, so that the next batch finds them free; raises what the last to fail raised."""
    failure: RuntimeError | None = None
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            failure = error
    if failure is not None:
        raise failure


def _constant_bytes(model: ov.Model) -> int:
    return sum(node.get_byte_size() for node in model.get_ops() if node.get_type_name() == "Constant")
