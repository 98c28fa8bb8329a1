"""What drawing the tokens of a step costs beside its forward pass: `python -m bench.sampling`.

The starter model decodes a few steps with 32 streams, and the logits of each are drawn from with every
combination of parameters, right after the forward pass, as the runtime does. Both are measured in wall time
and in CPU time of all threads; medians are reported. Part of the sampling is on one thread, so its share of a
step's wall time is the larger one. Penalties over long prompts are compared with a step of as much context,
whose contents are made up, as only their length tells. The masks of a schema have a row of their own: the
engine computes them while the forward pass runs, so they take CPU time from it, but are not waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.generation_cpu.machine import results_suffix
from bench.inference_engine_report import write
from carpool.generation import GrammarCompiler, GrammarKind, GrammarSource
from carpool.generation.grammar import Matcher
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import CHAT_MODEL
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes import sampling
from carpool.runtimes.decoder import Sample, SamplingParams, StepBatch, StepResult, StepSize
from carpool.runtimes.half import Logits
from carpool.runtimes.openvino import decoder as openvino_decoder
from carpool.runtimes.openvino.config import DecoderConfig
from carpool.runtimes.selection import StrandStatistics
from carpool.runtimes.token_history import TokenHistory

Times = NDArray[np.float64]
"""Wall and CPU milliseconds."""

STREAMS = 32
BLOCKS = 72
"""Of each stream: room for a long prompt and what is drawn."""
KV_CACHE_BYTES = 2 << 30
SUBJECTS = ("the sea", "an old clock", "bread", "the moon", "a lost dog", "winter", "a violin", "the harbour")
TASKS = ("Write a story", "Tell me", "A poem", "Explain something")
SCHEMA = (
    '{"type":"object","properties":{"title":{"type":"string"},"tags":{"type":"array",'
    '"items":{"type":"string"}}},"required":["title","tags"],"additionalProperties":false}'
)

SCHEMA_DRAWN = "0.7, top_p 0.9, JSON schema"
MASKS = "the schema's masks, while the forward pass runs"

CHAT = SamplingParams(temperature=0.7, top_p=0.9)
LONG_PROMPT = 2000
LONG = f"0.7, top_p 0.9, penalties over {LONG_PROMPT:,} tokens of prompt"
COMBINATIONS = {
    "greedy": SamplingParams(temperature=0),
    "temperature 1": SamplingParams(),
    "temperature 0.7": SamplingParams(temperature=0.7),
    "0.7, top_p 0.9": CHAT,
    "1, top_p 0.95": SamplingParams(top_p=0.95),
    "0.7, top_k 50": SamplingParams(temperature=0.7, top_k=50),
    "0.7, top_k 50, top_p 0.9": replace(CHAT, top_k=50),
    "0.7, min_p 0.05": SamplingParams(temperature=0.7, min_p=0.05),
    "0.7, top_p 0.9, min_p 0.05": replace(CHAT, min_p=0.05),
    "0.7, top_p 0.9, penalties": replace(CHAT, repetition_penalty=1.1, frequency_penalty=0.5),
    LONG: replace(CHAT, repetition_penalty=1.1, frequency_penalty=0.5),
    "greedy, 5 logprobs": SamplingParams(temperature=0, top_logprobs=5),
    "0.7, top_p 0.9, 5 logprobs": replace(CHAT, top_logprobs=5),
}


class Conversations:
    """32 streams of the starter model, a token each step."""

    def __init__(self, directory: Path, threads: int) -> None:
        path = fetch(
            ModelReference.parse(CHAT_MODEL.reference), directory, on_progress=lambda _progress: None
        )
        checkpoint = open_checkpoint(path)
        self.tokenizer = Tokenizer.from_checkpoint(checkpoint)
        self.decoder = openvino_decoder.load_decoder(
            checkpoint,
            DecoderConfig(kv_cache_bytes=KV_CACHE_BYTES),
            num_threads=threads,
            largest_step=StepSize(tokens=512, samples=STREAMS),
        )
        self.prompts = [
            self.tokenizer.encode(
                f"<|im_start|>user\n{task} about {subject}.<|im_end|>\n<|im_start|>assistant\n"
            )
            for task in TASKS
            for subject in SUBJECTS
        ]
        self.outputs: list[list[int]] = [[] for _ in self.prompts]
        self._histories: dict[tuple[str, int], TokenHistory] = {}
        for row, prompt in enumerate(self.prompts):
            self.outputs[row] += self._run([row], [prompt], [0])

    def step(self) -> None:
        """Decode one token of every stream."""
        for output, token_id in zip(self.outputs, self._step(0), strict=True):
            output.append(token_id)

    def long_step(self) -> None:
        """A step as if every stream had a long prompt before all it has; what comes of it is not kept."""
        self._step(LONG_PROMPT)

    def _step(self, before: int) -> list[int]:
        pasts = [
            before + len(prompt) + len(output) - 1
            for prompt, output in zip(self.prompts, self.outputs, strict=True)
        ]
        return self._run(range(STREAMS), [output[-1:] for output in self.outputs], pasts)

    def samples(self, params: SamplingParams, name: str = "") -> list[Sample]:
        """A draw for each stream, which keeps its history for each of these combinations."""
        return [
            Sample(row, replace(params, seed=row), prompt, output, history=self._history(name, row))
            for row, (prompt, output) in enumerate(zip(self.prompts, self.outputs, strict=True))
        ]

    def _history(self, name: str, row: int) -> TokenHistory:
        if (name, row) not in self._histories:
            prompt = self.prompts[row]
            if name == LONG:  # of that length, whatever the model has computed
                prompt = (
                    np.random.default_rng(row)
                    .integers(self.decoder.spec.vocab_size, size=LONG_PROMPT)
                    .tolist()
                )
            self._histories[name, row] = TokenHistory(prompt, self.outputs[row])
        return self._histories[name, row]

    def _run(self, rows: Any, tokens: list[list[int]], pasts: list[int]) -> list[int]:
        lens = np.array([len(each) for each in tokens])
        blocks = [
            -(-(past + count) // self.decoder.spec.block_size)
            for past, count in zip(pasts, lens, strict=True)
        ]
        table = [
            row * BLOCKS + block for row, count in zip(rows, blocks, strict=True) for block in range(count)
        ]
        drawn = self.samples(CHAT)
        batch = StepBatch(
            np.concatenate([np.array(each, np.int64) for each in tokens]),
            np.array(pasts, np.int32),
            np.concatenate([[0], np.cumsum(lens)]).astype(np.int32),
            np.array(table, np.int32),
            np.concatenate([[0], np.cumsum(blocks)]).astype(np.int32),
            [replace(drawn[row], row=place) for place, row in enumerate(rows)],
        )
        return list(self.decoder.launch(batch).result().token_ids)


def measured(work: Callable[[], object]) -> Times:
    """Wall and CPU milliseconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu]) * 1e3


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    streams = Conversations(Path(DEFAULT_DIRECTORY).expanduser(), options.threads)
    compiler = GrammarCompiler(streams.tokenizer, streams.decoder.spec.vocab_size)
    grammar = asyncio.run(compiler.compile(GrammarSource(GrammarKind.JSON_SCHEMA, SCHEMA)))
    matchers = [Matcher(grammar) for _ in range(STREAMS)]
    times: dict[str, list[Times]] = {name: [] for name in [*COMBINATIONS, SCHEMA_DRAWN, MASKS]}
    forward: list[Times] = []
    long_forward: list[Times] = []
    own: list[Times] = []

    # Sampling may overwrite the logits. A copy in memory that was used before, as the logits' own is.
    copies: dict[int, Logits] = {}

    def instrumented(
        logits: Logits, samples: list[Sample], statistics: StrandStatistics, *, nan_fills_rows: bool
    ) -> StepResult:
        results: list[StepResult] = []
        copy = copies.setdefault(len(logits), np.empty_like(logits))

        def draw(samples: list[Sample]) -> Times:
            copy[...] = logits
            return measured(
                lambda: results.append(
                    sampling.sample(copy, samples, statistics, nan_fills_rows=nan_fills_rows)
                )
            )

        if len(samples) == STREAMS:
            for name, params in COMBINATIONS.items():
                times[name].append(draw(streams.samples(params, name)))

            copy[...] = logits
            rows = [
                replace(each, allowed=matcher.mask)
                for each, matcher in zip(streams.samples(CHAT), matchers, strict=True)
            ]
            times[MASKS].append(measured(lambda: [matcher.mask() for matcher in matchers]))

            def constrained() -> None:
                drawn = sampling.sample(copy, rows, statistics).token_ids
                for number, (matcher, token_id) in enumerate(zip(matchers, drawn, strict=True)):
                    matcher.advance(token_id)
                    if matcher.finished:
                        matchers[number] = Matcher(grammar)

            times[SCHEMA_DRAWN].append(measured(constrained))
        own.append(draw(samples))
        return results[-1]

    ordinary = openvino_decoder.sample
    for _ in range(options.steps):
        openvino_decoder.sample = instrumented  # type: ignore[assignment]
        whole = measured(streams.step)
        forward.append(whole - own[-1] - sum(found[-1] for found in times.values()))
        openvino_decoder.sample = ordinary
        long_forward.append(measured(streams.long_step) - own[-1])  # it draws alike
    step, long_step = np.median(forward, axis=0), np.median(long_forward, axis=0)
    rows = []
    for name, found in times.items():
        wall, cpu = np.median(found, axis=0)
        of_step = long_step if name == LONG else step
        rows.append(
            {
                "parameters": name,
                "wall ms per step": wall,
                "share of a step's wall time (%)": 100 * wall / of_step[0],
                "CPU ms per step": cpu,
                "share of a step's CPU time (%)": 100 * cpu / of_step[1],
            }
        )
    write(
        "sampling",
        rows,
        f"{STREAMS} streams, {streams.decoder.spec.vocab_size:,} logits each; weights as "
        f"{streams.decoder.weights}, {options.threads} threads; the forward pass "
        f"takes {step[0]:.1f} ms, {step[1]:.1f} ms of CPU time; with {LONG_PROMPT:,} tokens of context more "
        f"{long_step[0]:.1f} and {long_step[1]:.1f} ms.",
        suffix=results_suffix(),
    )


if __name__ == "__main__":
    main()
