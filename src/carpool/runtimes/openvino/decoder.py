"""Decoders on the CPU."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.preprocess import PrePostProcessor

from carpool.errors import ModelFailed, StartError
from carpool.models.checkpoint import Checkpoint, TensorFormat
from carpool.runtimes.decoder import DecoderSpec, StepBatch, StepResult, StepSize
from carpool.runtimes.half import Logits, not_a_number
from carpool.runtimes.openvino import huge_pages
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder_graph import DecoderGraph
from carpool.runtimes.openvino.device import (
    AlikeRows,
    Precision,
    activation_rounding,
    compile_model,
    default_precision,
    real_threads,
    rows_that_round_alike,
)
from carpool.runtimes.openvino.gpt2 import Gpt2
from carpool.runtimes.openvino.gpt_neo import GptNeo
from carpool.runtimes.openvino.input_tensors import InputTensors
from carpool.runtimes.openvino.llama import Llama
from carpool.runtimes.openvino.mistral import Mistral
from carpool.runtimes.openvino.padding import padded
from carpool.runtimes.openvino.pieces import joined, pieces
from carpool.runtimes.openvino.qwen2 import Qwen2
from carpool.runtimes.openvino.qwen3 import Qwen3
from carpool.runtimes.openvino.strand_statistics import GraphStatistics
from carpool.runtimes.openvino.warm_up import even_step
from carpool.runtimes.sampling import sample
from carpool.runtimes.selection import StrandStatistics
from carpool.runtimes.step_check import check_batch

OnProgress = Callable[[str, float], object]
"""Called with a phase and the share of the loading that is done when it begins, 0 to 1."""

_ONE_TOKEN = StepSize(tokens=1, samples=1)
_MOST_WARM_UP_TOKENS = 2048
_WARM_UP_SECONDS = 5.0
"""About how long the last step of the warm-up may take, by what a block took."""

_GRAPHS: Mapping[str, type[DecoderGraph]] = {
    "GPT2LMHeadModel": Gpt2,
    "GPTNeoForCausalLM": GptNeo,
    "LlamaForCausalLM": Llama,
    "MistralForCausalLM": Mistral,
    "Qwen2ForCausalLM": Qwen2,
    "Qwen3ForCausalLM": Qwen3,
}


def load_decoder(
    checkpoint: Checkpoint,
    config: DecoderConfig,
    *,
    num_threads: int,
    largest_step: StepSize = _ONE_TOKEN,
    on_progress: OnProgress | None = None,
) -> "OpenVinoDecoder":
    """Build, compile and warm up a checkpoint's graph; `num_threads` is the budget of a forward pass.

    Steps larger than `largest_step` run, too, but in memory that is made only then.

    Raises `ModelFailed` for a checkpoint that cannot be built, `StartError` for KV memory too small for a
    single block.
    """
    weights = weight_format(checkpoint, config)
    report = on_progress or (lambda _phase, _share: None)
    report("building", 0.0)
    precision = _compute_precision(weights, config.kv_cache_precision)
    graph = _graph_class(checkpoint)(checkpoint, weights, precision, real_threads(num_threads))
    model = _build(graph, checkpoint)
    report("compiling", 0.4)
    if precision == "bf16":
        model = _with_half_logits(model)
    compiled = compile_model(
        model,
        num_threads=num_threads,
        precision=precision,
        properties=_properties(precision, weights, config.kv_cache_precision),
    )
    report("warming up", 0.9)
    decoder = OpenVinoDecoder(
        compiled,
        weights=weights,
        vocab_size=graph.vocab_size,
        context_length=graph.context_length,
        kv_cache_bytes=config.kv_cache_bytes,
        rows_alike=rows_that_round_alike(precision, weights),
        largest_step=largest_step,
        statistics=GraphStatistics(
            graph.vocab_size, compiled.output(0).element_type, num_threads=num_threads
        ),
    )
    report("ready", 1.0)
    return decoder


def weight_format(checkpoint: Checkpoint, config: DecoderConfig) -> WeightFormat:
    """How the weight matrices are held: what is set, or what AUTO stands for. Raises `ModelFailed`."""
    if config.weights is not WeightFormat.AUTO:
        return config.weights
    return _choose_weights(_graph_class(checkpoint).stored_format(checkpoint))


def _graph_class(checkpoint: Checkpoint) -> type[DecoderGraph]:
    kind = _GRAPHS.get(checkpoint.architecture)
    if kind is None:
        raise ModelFailed(
            f"{checkpoint.architecture} is not a decoder that can run here; supported: {', '.join(_GRAPHS)}"
        )
    return kind


def _build(graph: DecoderGraph, checkpoint: Checkpoint) -> ov.Model:
    try:
        return graph.model()
    except (RuntimeError, ValueError) as error:  # tensors whose shapes contradict each other or config.json
        reason = str(error).strip().splitlines()[-1]
        raise ModelFailed(f"{checkpoint.path} cannot be built as its config.json says: {reason}") from error


def _with_half_logits(model: ov.Model) -> ov.Model:
    """The model with its logits left in bf16, which sampling reads faster."""
    preprocessor = PrePostProcessor(model)
    preprocessor.output(0).tensor().set_element_type(ov.Type.bf16)
    return preprocessor.build()


def _choose_weights(stored: TensorFormat) -> WeightFormat:
    """What AUTO stands for; docs/decisions/001-starter-precision.md has the reasons and the measurements."""
    match stored:
        case TensorFormat.Q4_0 | TensorFormat.Q4_1:
            return WeightFormat.INT4
        case TensorFormat.BF16:
            return WeightFormat.BF16
        case TensorFormat.F32 | TensorFormat.F16:
            return WeightFormat.BF16 if default_precision() == "bf16" else WeightFormat.F32
        case _:
            return WeightFormat.INT8


def _compute_precision(weights: WeightFormat, kv_cache_precision: KvCachePrecision) -> Precision:
    """What a step is computed in: what the CPU does natively, unless the settings ask for more digits."""
    # In bf16, the plugin's attention takes keys neither in f16 nor in f32.
    if weights is WeightFormat.F32 or kv_cache_precision in {KvCachePrecision.F16, KvCachePrecision.F32}:
        return "f32"
    return default_precision()


def _properties(
    precision: Precision, weights: WeightFormat, kv_cache_precision: KvCachePrecision
) -> dict[str, Any]:
    """Of the CPU plugin, for a model computed in `precision`; decision 001 has the measurements."""
    properties = activation_rounding(precision, weights)
    if kv_cache_precision is KvCachePrecision.AUTO:
        kv_cache_precision = KvCachePrecision.BF16 if precision == "bf16" else KvCachePrecision.F16
    return {**properties, "KV_CACHE_PRECISION": kv_cache_precision.value}


_TABLE_GRAIN = 128
"""Block indices that the table of a step grows by."""


class OpenVinoDecoder:
    """A compiled decoder with its KV memory; implements `DecoderRuntime`.

    One inference request runs the steps in order. With u8 KV memory the keys of a block share their scales,
    which change as it fills: a prompt chunk that ends inside a block changes results in the last digits, one
    that ends with a block does not.
    """

    def __init__(
        self,
        compiled: ov.CompiledModel,
        *,
        weights: WeightFormat,
        vocab_size: int,
        context_length: int,
        kv_cache_bytes: int,
        rows_alike: AlikeRows,
        largest_step: StepSize,
        statistics: StrandStatistics,
    ) -> None:
        self._rows_alike = rows_alike
        self._statistics = statistics
        self.weights = weights
        """How they are held; never AUTO."""
        caches = [port for port in compiled.inputs if "_cache." in port.any_name]
        block_bytes = sum(math.prod(_block_shape(port)) * port.element_type.size for port in caches)
        num_blocks = kv_cache_bytes // block_bytes
        if num_blocks < 1:
            raise StartError(
                f"kv_cache_bytes is {kv_cache_bytes}, but one block of this model takes {block_bytes}"
            )
        # A quantised cache may hold its scales in further rows of the block.
        block_size = min(_block_shape(port)[1] for port in caches)
        self._spec = DecoderSpec(vocab_size, context_length, block_size, num_blocks)
        self._has_row_sums = len(compiled.outputs) > 1
        self._request = compiled.create_infer_request()
        self._inputs = InputTensors(self._request)
        self._kv_memory = []  # an ov.Tensor does not keep its array alive
        for port in caches:
            shape = [num_blocks + 1, *_block_shape(port)]  # the last for the padding
            memory = huge_pages.zeros(math.prod(shape) * port.element_type.size)
            self._kv_memory.append(memory)
            self._request.set_tensor(port, ov.Tensor(memory, ov.Shape(shape), port.element_type))
        self._last: _Step | None = None
        self._warm_up(largest_step)

    @property
    def spec(self) -> DecoderSpec:
        """Sizes, constant over the runtime's life."""
        return self._spec

    def launch(self, batch: StepBatch) -> "_Step":
        """Start a step, after the step in flight if there is one.

        Raises `ValueError` for a batch that contradicts itself or `spec`, and what the step in flight raises
        if the batch needs its tokens.
        """
        check_batch(batch, self._spec)
        if self._last is not None:
            self._last.settle()
            batch = replace(batch, token_ids=self._last.fill_in(batch.token_ids))
        self._last = _Step(
            pieces(batch, self._rows_alike.most, self._spec.block_size),
            self._start,
            self._request,
            self._statistics,
            has_row_sums=self._has_row_sums,
        )
        return self._last

    def _start(self, batch: StepBatch) -> None:
        """Start a forward pass."""
        batch = padded(batch, self._rows_alike.least, self._spec.num_blocks)
        token_ids, begins = batch.token_ids, batch.subsequence_begins
        lens = begins[1:] - begins[:-1]
        last_tokens = begins[1:] - 1
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": token_ids,
            "position_ids": np.arange(len(token_ids)) + np.repeat(batch.past_lens - begins[:-1], lens),
            "sample_positions": last_tokens[[each.row for each in batch.samples]].astype(np.int64),
            "past_lens": batch.past_lens,
            "subsequence_begins": begins,
            "block_indices": _rounded_up(batch.block_indices, self._spec.num_blocks),
            "block_indices_begins": batch.block_indices_begins,
            "max_context_len": np.asarray((batch.past_lens + lens).max()),
        }
        for name, values in inputs.items():
            self._inputs.write(name, values)
        self._request.start_async()

    def close(self) -> None:
        """Free the memory; the decoder cannot be used any more."""
        self._last = None
        del self._request, self._inputs
        self._kv_memory.clear()

    def _warm_up(self, largest_step: StepSize) -> None:
        """Run one token, then blocks: the plugin packs the weights for either at its first step.

        Then the largest step, so that its memory moves to huge pages with all other, or one of as many tokens
        as take a few seconds.
        """
        block = StepSize(self._spec.block_size, samples=1)
        for size in (_ONE_TOKEN, block, block):
            began = time.perf_counter()
            self.launch(even_step(self._spec, size)).result()
        blocks = int(_WARM_UP_SECONDS / (time.perf_counter() - began))
        tokens = min(largest_step.tokens, blocks * self._spec.block_size, _MOST_WARM_UP_TOKENS)
        if tokens > self._spec.block_size:
            self.launch(even_step(self._spec, StepSize(tokens, largest_step.samples))).result()
        huge_pages.collapse()


class _Step:
    """A step of the inference request, in one forward pass or several; implements `StepHandle`."""

    def __init__(
        self,
        batches: Sequence[StepBatch],
        start: Callable[[StepBatch], None],
        request: ov.InferRequest,
        statistics: StrandStatistics,
        *,
        has_row_sums: bool,
    ) -> None:
        """Starts the first of the batches; the others follow when it is waited for."""
        self._batches = batches
        self._start = start
        self._request = request
        self._statistics = statistics
        self._has_row_sums = has_row_sums
        self._outcome: StepResult | Exception | None = None
        start(batches[0])

    def settle(self) -> StepResult | Exception:
        """Wait for the step, running what is left of it, and draw its tokens.

        Must happen before the next step overwrites the logits.
        """
        if self._outcome is None:
            try:
                results = [self._draw(self._batches[0])]
                for batch in self._batches[1:]:
                    self._start(batch)
                    results.append(self._draw(batch))
                self._outcome = joined(results)
            except Exception as error:
                self._outcome = error
        return self._outcome

    def _draw(self, batch: StepBatch) -> StepResult:
        """Wait for the forward pass of a batch, and draw its tokens."""
        self._request.wait()
        logits = self._request.get_output_tensor(0)
        rows: Logits = logits.data
        if logits.element_type == ov.Type.bf16:
            rows = rows.view(np.uint16)
        rows = rows[: len(batch.samples)]
        if self._has_row_sums:
            are_numbers = np.isfinite(self._request.get_output_tensor(1).data[: len(rows)])
            if not are_numbers.all():
                rows[~are_numbers] = not_a_number(rows)
        return sample(rows, batch.samples, self._statistics, nan_fills_rows=self._has_row_sums)

    def result(self) -> StepResult:
        """See `StepHandle`."""
        outcome = self.settle()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def fill_in(self, token_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Token ids with those drawn by this step in the places of the `in_flight` ones."""
        is_in_flight = token_ids < 0
        if is_in_flight.any():
            token_ids = token_ids.copy()
            token_ids[is_in_flight] = np.array(self.result().token_ids)[-1 - token_ids[is_in_flight]]
        return token_ids


def _rounded_up(block_indices: NDArray[np.int32], spare_block: int) -> NDArray[np.int32]:
    """The indices, and behind them the block that is no sequence's, up to a length that seldom changes.

    A table that grew by a block with every other step would have all layers' attention prepare for new
    shapes, which is 1 to 2 % of a step of 32 rows.
    """
    whole = np.full(-(-len(block_indices) // _TABLE_GRAIN) * _TABLE_GRAIN, spare_block, np.int32)
    whole[: len(block_indices)] = block_indices
    return whole


def _block_shape(port: ov.ConstOutput) -> list[int]:
    """[KV heads, tokens, bytes or elements per token and head] of one block of one cache."""
    return [dimension.get_length() for dimension in list(port.partial_shape)[1:]]
