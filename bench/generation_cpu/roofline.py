"""What the machine could do at most and where a step's time goes: `python -m bench.generation_cpu.roofline`.

A step must read every weight once and do two operations per weight and token; whichever takes longer at the
measured bandwidth and matrix rate is its floor (Williams et al., https://doi.org/10.1145/1498765.1498785).
"""

import argparse
import asyncio
import operator
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.decoder_precision import CONTEXT, step
from bench.generation_cpu.machine import measure_machine
from bench.generation_cpu.workload import NEW_TOKENS, THREADS, prompts
from bench.inference_engine_report import table
from carpool.generation import GenerationConfig, GenerationEngine, GenerationRequest, SequenceOutput
from carpool.inference_engine import DeviceGate
from carpool.models.checkpoint import Checkpoint
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import CHAT_MODEL
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import (
    DecoderRuntime,
    DecoderSpec,
    SamplingParams,
    StepBatch,
    StepHandle,
    StepResult,
    StepSize,
)
from carpool.runtimes.openvino.config import DecoderConfig, WeightFormat
from carpool.runtimes.openvino.decoder import OpenVinoDecoder, load_decoder
from carpool.runtimes.openvino.device import core, default_precision, uses_matrix_units
from carpool.telemetry import Registry

STREAMS = (1, 8, 32)
_GROUPS_OF_4_BITS = 0.5 + 4 / 32
"""A group of 32 has a scale and a zero point, each f16."""
BYTES_PER_WEIGHT = {
    WeightFormat.F32: (4, 4, 4),
    WeightFormat.BF16: (2, 2, 2),
    WeightFormat.MIXED: (2, 1, 1 if uses_matrix_units(default_precision()) else 2),
    WeightFormat.INT8: (1, 1, 1),
    WeightFormat.INT4: (_GROUPS_OF_4_BITS, _GROUPS_OF_4_BITS, 1),
}
"""Of attention's matrices, the feed-forward layers' and the output layer, which int4 leaves at 8 bits."""
_KINDS = {
    "FullyConnected": "products",
    "MatMul": "products",
    "LLMMLP": "products",
    "QKVProjection": "products",
    "PagedAttention": "attention",
    "RMS": "norms",
    "RoPE": "rotation",
}
"""Beginnings of the plugin's node types."""
_WARM_UP_RUNS = 4
"""Of a decoder when it is loaded."""
_PROFILED_RUNS = 12
_PARTS = ("products", "output layer", "attention", "norms", "rotation", "rest of the graph")


def _count(matrices: Iterable[tuple[int, int]]) -> int:
    return sum(rows * columns for rows, columns in matrices)


class Shapes:
    """A Llama's matrices, and what a step with them costs."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        kv = config["num_key_value_heads"] * config["head_dim"]
        query = config["num_attention_heads"] * config["head_dim"]
        layers, head = config["num_hidden_layers"], (hidden, config["vocab_size"])
        attention = [(hidden, query), (hidden, kv), (hidden, kv), (query, hidden)]
        feed_forward = [(hidden, inner), (hidden, inner), (inner, hidden)]
        self.matrices = (attention + feed_forward) * layers + [head]
        """[in, out] of every product in the order of a step."""
        self.num_weights = _count(self.matrices)
        self._kinds = [_count(attention * layers), _count(feed_forward * layers), _count([head])]
        self._kv_per_token = 2 * config["num_hidden_layers"] * kv
        self._attention_per_token = 4 * config["num_hidden_layers"] * query

    def step_bytes(self, weights: WeightFormat, streams: int, kv_bytes: int) -> float:
        """Weights once, and every stream's keys and values."""
        of_weights = sum(map(operator.mul, self._kinds, BYTES_PER_WEIGHT[weights]))
        return of_weights + streams * CONTEXT * self._kv_per_token * kv_bytes

    def step_operations(self, streams: int) -> float:
        """Multiplications and additions of the products and of attention."""
        return streams * (2.0 * self.num_weights + self._attention_per_token * CONTEXT)


def _load(checkpoint: Checkpoint, weights: WeightFormat) -> OpenVinoDecoder:
    config = DecoderConfig(weights=weights, kv_cache_bytes=512 << 20)
    largest = StepSize(tokens=512, samples=max(STREAMS))
    return load_decoder(checkpoint, config, num_threads=THREADS, largest_step=largest)


def step_ms(decoder: DecoderRuntime, streams: int) -> float:
    """The median decode step, sampling included."""
    batch = step(np.arange(100, 100 + streams), CONTEXT, SamplingParams(temperature=0))
    milliseconds = []
    for _ in range(13):
        began = time.perf_counter()
        decoder.launch(batch).result()
        milliseconds.append((time.perf_counter() - began) * 1e3)
    return statistics.median(milliseconds[3:])


def profile_ms(decoder: OpenVinoDecoder, streams: int) -> dict[str, float]:
    """The mean decode step by kind of node; for a graph just compiled with PERF_COUNT.

    The plugin tells the mean of all runs, so those that warmed it up are taken out again.
    """
    batch = step(np.arange(100, 100 + streams), CONTEXT, SamplingParams(temperature=0))
    runs_before, before = _WARM_UP_RUNS, _node_ms(decoder)
    for _ in range(_PROFILED_RUNS):
        decoder.launch(batch).result()
    found = dict.fromkeys(_PARTS, 0.0)
    largest_product = 0.0  # the output layer: of the starter, another node has a tenth of its weights
    for (node_type, mean), (_, mean_before) in zip(_node_ms(decoder), before, strict=True):
        total = mean * (runs_before + _PROFILED_RUNS) - mean_before * runs_before
        milliseconds = total / _PROFILED_RUNS
        kinds = [kind for begin, kind in _KINDS.items() if node_type.startswith(begin)]
        found[kinds[0] if kinds else "rest of the graph"] += milliseconds
        if kinds == ["products"]:
            largest_product = max(largest_product, milliseconds)
    found["products"] -= largest_product
    found["output layer"] = largest_product
    return found


def _node_ms(decoder: OpenVinoDecoder) -> list[tuple[str, float]]:
    return [
        (node.node_type, node.real_time.total_seconds() * 1e3) for node in decoder._request.profiling_info
    ]


class TimedRuntime:
    """A decoder that knows how long steps were in flight; implements `DecoderRuntime`."""

    def __init__(self, decoder: DecoderRuntime) -> None:
        self._decoder = decoder
        self.busy_s = 0.0
        self.steps = 0

    @property
    def spec(self) -> DecoderSpec:
        """The decoder's."""
        return self._decoder.spec

    def launch(self, batch: StepBatch) -> "_TimedStep":
        """See `DecoderRuntime`."""
        self.steps += 1
        return _TimedStep(self, time.perf_counter(), self._decoder.launch(batch))

    def close(self) -> None:
        """See `DecoderRuntime`."""
        self._decoder.close()


@dataclass(frozen=True, slots=True)
class _TimedStep:
    runtime: TimedRuntime
    began: float
    handle: StepHandle

    def result(self) -> StepResult:
        result = self.handle.result()
        self.runtime.busy_s += time.perf_counter() - self.began
        return result


async def host_ms(decoder: DecoderRuntime, tokenizer: Tokenizer, streams: int) -> float:
    """What a step of the engine takes beside the runtime: scheduling, bookkeeping, delivery."""
    runtime = TimedRuntime(decoder)
    ended = asyncio.Event()
    unfinished = streams

    def on_step(outputs: list[SequenceOutput]) -> None:
        nonlocal unfinished
        unfinished -= sum(output.finish_reason is not None for output in outputs)
        if not unfinished:
            ended.set()

    engine = GenerationEngine(
        runtime, GenerationConfig(), DeviceGate("fifo"), on_step, name="roofline", registry=Registry()
    )
    async with engine:
        began = time.perf_counter()
        for index, prompt in enumerate(prompts(streams, number=0)):
            request = GenerationRequest(
                request_id=index,
                prompt_ids=tokenizer.encode(prompt),
                params=SamplingParams(temperature=0),
                max_tokens=NEW_TOKENS,
            )
            engine.submit(request)
        await ended.wait()
        seconds = time.perf_counter() - began
    return (seconds - runtime.busy_s) / runtime.steps * 1e3


def roofline(gguf: Path) -> str:
    """Measure; the tables as markdown."""
    checkpoint = open_checkpoint(gguf)
    shapes = Shapes(checkpoint.config)
    machine = measure_machine(shapes.matrices)
    floating = WeightFormat.BF16 if default_precision() == "bf16" else WeightFormat.F32
    floors, parts = [], []
    mixed = [WeightFormat.MIXED] if floating is WeightFormat.BF16 else []
    for weights in (floating, *mixed, WeightFormat.INT8, WeightFormat.INT4):
        decoder = _load(checkpoint, weights)
        measured = {streams: step_ms(decoder, streams) for streams in STREAMS}
        if weights is floating:
            host = asyncio.run(host_ms(decoder, Tokenizer.from_checkpoint(checkpoint), max(STREAMS)))
        decoder.close()
        for streams in STREAMS:
            read = shapes.step_bytes(weights, streams, kv_bytes=2)
            operations = shapes.step_operations(streams)
            memory_ms, matrix_ms = read / machine.bandwidth * 1e3, operations / machine.matrix_rate * 1e3
            floor = max(memory_ms, matrix_ms)
            floors.append(
                {
                    "weights": weights.value,
                    "streams": streams,
                    "MB read": f"{read / 1e6:.0f}",
                    "GFLOP": f"{operations / 1e9:.2f}",
                    "memory, ms": f"{memory_ms:.1f}",
                    "matrix, ms": f"{matrix_ms:.1f}",
                    "floor, tok/s": f"{streams / floor * 1e3:.0f}",
                    "step, ms": f"{measured[streams]:.1f}",
                    "tok/s": f"{streams / measured[streams] * 1e3:.0f}",
                    "of the floor": f"{floor / measured[streams]:.0%}",
                }
            )
            core().set_property("CPU", {"PERF_COUNT": True})
            profiled = _load(checkpoint, weights)
            core().set_property("CPU", {"PERF_COUNT": False})
            found = profile_ms(profiled, streams)
            profiled.close()
            parts.append(
                {"weights": weights.value, "streams": streams}
                | {f"{part}, ms": f"{found[part]:.1f}" for part in _PARTS}
            )
    bandwidth, large, small = (
        f"{value / 1e9:.0f}" for value in (machine.bandwidth, machine.matrix_rate, machine.numpy_rate)
    )
    return f"""Measured with {THREADS} threads: {bandwidth} GB/s read from memory (NumPy's max over 256 MiB
a thread), {large} GFLOP/s in large matrix products (OpenVINO), {small} GFLOP/s in NumPy's f32 products of the
model's shapes with 32 rows.

A step at {CONTEXT} tokens of context reads every weight once and every stream's 16-bit keys and values. The
model has {shapes.num_weights / 1e6:.0f} million weights in products. The floor is the longer of both times.

{table(floors)}
Where a step goes, by the plugin's own counters:

{table(parts)}
Beside the runtime the engine takes {host:.2f} ms a step at {max(STREAMS)} streams for scheduling, bookkeeping
and delivery, while the device waits.
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_DIRECTORY)
    reference = ModelReference.parse(CHAT_MODEL.reference)
    print(roofline(fetch(reference, parser.parse_args().model_dir.expanduser(), lambda _: None)))


if __name__ == "__main__":
    main()
