"""`python -m bench.generation_cpu`: Carpool and other engines generate on this machine's CPU, in one run.

First every variant of every engine runs by itself at 1, 8 and 32 streams. Then each engine's best variants
take turns, size by size: what was best at 32 streams runs at 64 as well, and at 1 stream Carpool's int4 in
any case. At 32 streams they run once more with short questions, where most of the time goes into decoding.
What counts is always the second of two runs, one right after the other, of which the first begins on an idle
machine; both have prompts that the engine has not seen, and in a round all engines have the same. Who is far
behind has one such pair. At last requests arrive at random times, the same for everyone, and the engines take
turns again. Writes bench/results/generation_cpu.*.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.generation_cpu.checkpoint import write_checkpoint
from bench.generation_cpu.contestants import Variant, variants
from bench.generation_cpu.machine import wait_until_idle
from bench.generation_cpu.process import ContestantFailedError, ContestantProcess
from bench.generation_cpu.report import BUSY, FAR_BEHIND, QUALIFYING, Arrivals, Figures, write
from bench.generation_cpu.roofline import roofline
from bench.generation_cpu.workload import MIXED, NEW_TOKENS, QUESTIONS, STREAMS, prompts
from bench.inference_engine_report import poisson
from carpool.models.open import open_checkpoint
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import CHAT_MODEL
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.device import default_precision

_SHARE_OF_SLOWEST = 0.6
"""Offered load under random arrivals, in parts of what the slowest engine generates at 32 streams."""


class Benchmark:
    """The runs and what they gave."""

    def __init__(self, runs: int, arrivals: int) -> None:
        self._runs = runs
        self._num_arrivals = arrivals
        self._prompts = itertools.count(1)
        """A number for each set of prompts."""
        self._qualifying = {streams: self._pair() for streams in QUALIFYING}
        self._processes: dict[Variant, ContestantProcess] = {}
        self.figures = Figures()

    def qualify(self, variant: Variant) -> None:
        """Run a variant at the qualifying sizes; keep its process if it is among its engine's best so far."""
        key = f"{variant.engine}, {variant.name}"
        began = time.perf_counter()
        try:
            process = ContestantProcess(variant)
            for streams in QUALIFYING:
                rate = self._second_run(process, streams, MIXED, self._qualifying[streams])
                self.figures.qualified[variant, streams] = rate
        except ContestantFailedError as error:
            self.figures.failures[key] = str(error)
            for streams in QUALIFYING:
                self.figures.qualified.pop((variant, streams), None)
            print(f"{key} cannot run here: {error}", file=sys.stderr)
            return
        self._processes[variant] = process
        self._choose()
        print(f"{key}: {time.perf_counter() - began:.0f} s in all", file=sys.stderr)

    def _choose(self) -> None:
        """Keep the best variants of every engine, end the others."""
        engines = list(dict.fromkeys(variant.engine for variant, _ in self.figures.qualified))
        for streams in QUALIFYING:
            rates = {variant: self.figures.qualified[variant, streams] for variant in self._processes}
            in_order = sorted(rates, key=lambda variant: (engines.index(variant.engine), rates[variant]))
            # Of an engine the last is kept.
            self.figures.best[streams] = {variant.engine: variant for variant in in_order}
        self._keep([variant for streams in QUALIFYING for variant in self.figures.compared(streams)])

    def _keep(self, variants: Sequence[Variant]) -> None:
        """End all others, as memory may not hold all of them, and start what ended before."""
        for variant in self._processes.keys() - variants:
            self._processes.pop(variant).end()
        for variant in variants:
            if variant not in self._processes:
                self._processes[variant] = ContestantProcess(variant)

    def compare(self, streams: int) -> None:
        """Those compared at one size take turns."""
        self._keep(self.figures.compared(streams))
        rates = {
            variant: self.figures.rates.setdefault((variant, streams), [])
            for variant in self.figures.compared(streams)
        }
        self._take_turns(streams, MIXED, rates)

    def compare_questions(self) -> None:
        """The same with short prompts."""
        self._keep(self.figures.compared(BUSY))
        self.figures.questions = {variant: [] for variant in self.figures.compared(BUSY)}
        self._take_turns(BUSY, QUESTIONS, self.figures.questions)

    def _take_turns(self, streams: int, sentences: Sequence[int], rates: dict[Variant, list[float]]) -> None:
        """Add to each variant's rates; who is far behind has no more than one."""
        processes = [self._processes[variant] for variant in rates]
        for _ in range(self._runs):
            numbers = self._pair()
            for process in processes:
                own = rates[process.variant]
                best = max(map(median, filter(None, rates.values())), default=0.0)
                if not own or median(own) * FAR_BEHIND > best:
                    own.append(self._second_run(process, streams, sentences, numbers))

    def arrive(self) -> None:
        """Random arrivals; the engines take turns."""
        rates = {
            variant: median(self.figures.rates[variant, BUSY])
            for variant in self.figures.chosen(BUSY).values()
        }
        chosen = [variant for variant, rate in rates.items() if rate * FAR_BEHIND > max(rates.values())]
        rate = _SHARE_OF_SLOWEST * min(rates[variant] for variant in chosen) / NEW_TOKENS
        due = list(itertools.islice(poisson(rate, float("inf"), seed=7), self._num_arrivals))
        left_out = [variant.engine for variant in rates if variant not in chosen]
        latencies: dict[Variant, tuple[list[float], list[float]]] = {each: ([], []) for each in chosen}
        self.figures.arrivals = Arrivals(rate, len(due), self._runs, left_out, latencies)
        for _ in range(self._runs):
            texts = prompts(len(due), next(self._prompts))
            for variant, (ttft, gaps) in latencies.items():
                self._settle()
                times = self._processes[variant].serve(texts, due)
                ttft += [mine[0] - at for mine, at in zip(times, due, strict=True)]
                gaps += [later - sooner for mine in times for sooner, later in itertools.pairwise(mine)]

    def end(self) -> None:
        """End what still runs."""
        for process in self._processes.values():
            process.end()

    def _pair(self) -> tuple[int, int]:
        """Prompts of a run that is not counted, and of the one that is."""
        return next(self._prompts), next(self._prompts)

    def _second_run(
        self, process: ContestantProcess, streams: int, sentences: Sequence[int], numbers: tuple[int, int]
    ) -> float:
        """Generated tokens per second, right after a run that is not counted.

        After a pause the processor takes some tenths of a second to get to its speed, whoever runs.
        """
        self._settle()
        for number in numbers:
            seconds, texts = process.generate(prompts(streams, number, sentences))
            assert len(texts) == streams
            assert all(texts)
        rate = streams * NEW_TOKENS / seconds
        print(f"{process.variant.engine}, {process.variant.name} x{streams}: {rate:.1f}", file=sys.stderr)
        return rate

    def _settle(self) -> None:
        if not wait_until_idle():
            self.figures.num_busy_begins += 1


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="counted runs of each size, taking turns")
    parser.add_argument("--arrivals", type=int, default=24, help="requests that arrive at random")
    parser.add_argument("--only", nargs="*", help="beginnings of engines' names; default all")
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_DIRECTORY)
    arguments = parser.parse_args()
    directory = arguments.model_dir.expanduser()
    gguf = fetch(ModelReference.parse(CHAT_MODEL.reference), directory, lambda _: None)
    checkpoint = directory / "bench" / f"{CHAT_MODEL.model_id}-bf16"
    write_checkpoint(gguf, checkpoint)
    has_bf16 = default_precision() == "bf16"
    benchmark = Benchmark(arguments.runs, arguments.arrivals)
    began = time.perf_counter()
    for variant in list(variants(gguf, checkpoint, has_bf16=has_bf16)):
        if not arguments.only or variant.engine.lower().startswith(tuple(map(str.lower, arguments.only))):
            benchmark.qualify(variant)
    tokenizer = Tokenizer.from_checkpoint(open_checkpoint(gguf))

    def save() -> None:
        write(benchmark.figures, tokenizer, minutes=(time.perf_counter() - began) / 60)

    for streams in STREAMS:
        benchmark.compare(streams)
        save()  # it takes the better part of an hour where engines are slow
    benchmark.compare_questions()
    save()
    benchmark.arrive()
    benchmark.end()
    save()
    benchmark.figures.roofline = roofline(gguf)
    save()


if __name__ == "__main__":
    main()
