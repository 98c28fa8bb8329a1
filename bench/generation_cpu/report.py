"""The tables of `python -m bench.generation_cpu`."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from bench.generation_cpu import contestants
from bench.generation_cpu.contestants import CARPOOL, Variant, is_int4
from bench.generation_cpu.machine import results_suffix
from bench.generation_cpu.workload import MIXED, NEW_TOKENS, QUESTIONS, STREAMS, THREADS, prompts
from bench.inference_engine_report import RESULTS, processor, quantile, table
from carpool.models.tokenizer import Tokenizer

QUALIFYING = (1, 8, 32)
"""Streams at which an engine's variants are compared; the last decides for larger sizes as well."""
BUSY = QUALIFYING[-1]
"""Streams that the bars are about."""

_BARS = ((contestants.OPENVINO_GENAI, 1.25), (contestants.VLLM_CPU, 1.7), (contestants.LLAMA, 4.0))
"""Asked for at `BUSY` streams."""
_BAR_AT_ONE = 1.2
"""Asked for against llama.cpp at 1 stream, of int4 weights."""

FAR_BEHIND = 3.0
"""An engine that the best one is so many times as fast as has one counted run and meets no random arrivals: a
load that it can bear tells nothing of the others."""


@dataclass(slots=True)
class Arrivals:
    """What requests met that came at random times."""

    rate: float
    """Requests per second."""
    count: int
    """Of requests in a round."""
    rounds: int
    left_out: list[str]
    """Engines that are far behind."""
    latencies: dict[Variant, tuple[list[float], list[float]]]
    """Times to the first token and between tokens, in seconds."""


@dataclass(slots=True)
class Figures:
    """All that was measured."""

    qualified: dict[tuple[Variant, int], float] = field(default_factory=dict)
    """Generated tokens per second of the runs that choose variants, by variant and streams."""
    rates: dict[tuple[Variant, int], list[float]] = field(default_factory=dict)
    """The same of every counted run of those chosen."""
    questions: dict[Variant, list[float]] = field(default_factory=dict)
    """The same at `BUSY` streams with short prompts."""
    num_busy_begins: int = 0
    """Pairs of runs that began before the machine was idle."""
    best: dict[int, dict[str, Variant]] = field(default_factory=dict)
    """Each engine's best variant at the qualifying sizes."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why a variant could not run here."""
    arrivals: Arrivals | None = None
    roofline: str = ""

    @property
    def sizes(self) -> list[int]:
        """Numbers of streams at which the chosen were compared."""
        return [
            streams
            for streams in STREAMS
            if all((variant, streams) in self.rates for variant in self.chosen(streams).values())
        ]

    @property
    def int4(self) -> Variant | None:
        """Carpool with 4-bit weights, as llama.cpp's are; None: it did not run."""
        return next((each for each, _ in self.qualified if is_int4(each)), None)

    def chosen(self, streams: int) -> dict[str, Variant]:
        """Which variant stands for each engine at this size."""
        return self.best[max(size for size in QUALIFYING if size <= streams)]

    def compared(self, streams: int) -> list[Variant]:
        """All that take turns at this size: the chosen, and at 1 stream int4 beside them."""
        extra = [] if streams > 1 or self.int4 is None else [self.int4]
        return list(dict.fromkeys([*self.chosen(streams).values(), *extra]))


def write(figures: Figures, tokenizer: Tokenizer, minutes: float) -> None:
    """Print the report of what there is so far, and leave it and the figures in `bench/results/`.

    Processors that compute in f32 have results of their own.
    """
    command = " ".join(["python -m bench.generation_cpu", *sys.argv[1:]])
    mixed, questions = (_lengths(tokenizer, sentences) for sentences in (MIXED, QUESTIONS))
    load = f"load average {os.getloadavg()[0]:.1f} at the end"
    machine = f"{processor()}, {THREADS} threads, Python {platform.python_version()}, {load}"
    sections = [
        f"# generation_cpu\n\n`{command}` · {machine} · {minutes:.0f} minutes",
        f"SmolLM2-135M-Instruct, greedy, {NEW_TOKENS} new tokens for each of as many prompts as there are "
        f"streams. Prompts have {mixed}; in the column of questions {questions}. Generated tokens per second "
        "of wall time from the first submit to the last text, prompts and text work included; median of the "
        "counted runs, in brackets the lowest and the highest; who is far behind has one. In a round all "
        "have the same prompts, new to them. What counts is the second of two runs, one right after the "
        "other, of which the first begins when the machine is idle, since threads of some engines spin on "
        "after theirs "
        f"({figures.num_busy_begins} could not wait for that any longer). Carpool's requests cross the "
        "border to its worker process, as in service.",
        table(_rates(figures)),
        table(_bars(figures)),
        "## Variants\n\nEach by itself, a run that chooses the best but is not counted above. All but "
        "llama.cpp and int4 of Carpool use one bf16 checkpoint, made from the GGUF file. llama.cpp is "
        "xllamacpp's wheel, which is built for AVX2.",
        table(_variants(figures)),
    ]
    if figures.failures:
        sections.append(
            "\n".join(f"- {name} cannot run here: {why}" for name, why in figures.failures.items())
        )
    if figures.arrivals is not None:
        sections += [
            f"## Random arrivals\n\n{figures.arrivals.count} requests, {figures.arrivals.rate:.2f} a second, "
            f"at the same random times for everyone, in each of {figures.arrivals.rounds} rounds. TTFT: from "
            "when a request was due to its first token. Gap: between two tokens of a request. Milliseconds. "
            f"{_left_out(figures.arrivals)}",
            table(_latencies(figures.arrivals)),
        ]
    if figures.roofline:
        sections.append(f"## Roofline\n\n{figures.roofline}")
    text = "\n\n".join(section.strip() for section in sections) + "\n"
    RESULTS.mkdir(exist_ok=True)
    name = f"generation_cpu{results_suffix()}"
    (RESULTS / f"{name}.md").write_text(text)
    facts = {
        "command": command,
        "machine": machine,
        "qualified": [
            {"engine": variant.engine, "variant": variant.name, "streams": streams, "tok/s": rate}
            for (variant, streams), rate in figures.qualified.items()
        ],
        "rates": [
            {"engine": variant.engine, "variant": variant.name, "streams": streams, "tok/s": measured}
            for (variant, streams), measured in figures.rates.items()
        ],
        "questions": [
            {"engine": variant.engine, "variant": variant.name, "streams": BUSY, "tok/s": measured}
            for variant, measured in figures.questions.items()
        ],
        "failures": figures.failures,
        "arrivals": None if figures.arrivals is None else _latencies(figures.arrivals),
        "left out of arrivals": [] if figures.arrivals is None else figures.arrivals.left_out,
        "roofline": figures.roofline,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(text)


def _lengths(tokenizer: Tokenizer, sentences: Sequence[int]) -> str:
    lengths = [len(tokenizer.encode(prompt)) for prompt in prompts(max(STREAMS), 1, sentences)]
    return f"{min(lengths)} to {max(lengths)} tokens (mean {sum(lengths) / len(lengths):.0f})"


def _rates(figures: Figures) -> list[dict[str, object]]:
    rows = []
    for engine in figures.chosen(STREAMS[0]):
        names = [figures.best[QUALIFYING[0]][engine].name]
        for before, streams in pairwise(QUALIFYING):
            variant = figures.best[streams][engine]
            if variant != figures.best[before][engine]:
                names.append(f"from {streams} streams {variant.name}")
        row: dict[str, object] = {"engine": engine, "variant": "; ".join(names)}
        for streams in figures.sizes:
            row[f"{streams} streams"] = _spread(figures.rates[figures.chosen(streams)[engine], streams])
        if figures.questions:
            row[f"{BUSY} streams, questions"] = _spread(figures.questions[figures.chosen(BUSY)[engine]])
        rows.append(row)
    chosen = figures.chosen(1).values()
    for variant in figures.compared(1):
        if variant not in chosen:
            row = dict.fromkeys(rows[0], "") | {"engine": variant.engine, "variant": variant.name}
            rows.append(row | {"1 streams": _spread(figures.rates[variant, 1])})
    return rows


def _spread(measured: list[float]) -> str:
    return f"{median(measured):.0f} ({min(measured):.0f} to {max(measured):.0f})"


def _bars(figures: Figures) -> list[dict[str, object]]:
    """How many times faster Carpool's best variant is than each engine's, beside what was asked for.

    llama.cpp is asked about at 1 stream with 4-bit weights on both sides.
    """
    rows: list[dict[str, object]] = []
    if CARPOOL not in figures.chosen(BUSY):
        return rows
    for streams in figures.sizes:
        rates = {variant: measured for (variant, at), measured in figures.rates.items() if at == streams}
        row = _ratios(figures, streams, rates)
        rows.append({"Carpool's rate by": f"{streams} streams"} | row)
    if figures.questions:
        row = _ratios(figures, BUSY, figures.questions)
        rows.append({"Carpool's rate by": f"{BUSY} streams, questions"} | row)
    return rows


def _ratios(figures: Figures, streams: int, rates: Mapping[Variant, list[float]]) -> dict[str, object]:
    chosen = figures.chosen(streams)
    asked = dict(_BARS) if streams == BUSY else {}
    row: dict[str, object] = {}
    for engine, variant in chosen.items():
        if engine == CARPOOL:
            continue
        theirs = median(rates[variant])
        times = f"{median(rates[chosen[CARPOOL]]) / theirs:.2f}x"
        if engine in asked:
            times += f" (asked: {asked[engine]}x)"
        if engine == contestants.LLAMA and streams == 1 and figures.int4 is not None:
            times += f"; int4 {median(rates[figures.int4]) / theirs:.2f}x (asked: {_BAR_AT_ONE}x)"
        row[engine] = times
    return row


def _variants(figures: Figures) -> list[dict[str, object]]:
    rows = []
    for variant in dict.fromkeys(variant for variant, _ in figures.qualified):
        row: dict[str, object] = {"engine": variant.engine, "variant": variant.name}
        for streams in QUALIFYING:
            row[f"{streams} streams"] = f"{figures.qualified[variant, streams]:.0f}"
        rows.append(row)
    return rows


def _left_out(arrivals: Arrivals) -> str:
    if not arrivals.left_out:
        return ""
    return (
        f"Left out: {', '.join(arrivals.left_out)}. At 32 streams the fastest engine is at least "
        f"{FAR_BEHIND:g} times as fast, and a load that the slower can bear would tell nothing of the others."
    )


def _latencies(arrivals: Arrivals) -> list[dict[str, object]]:
    rows = []
    for variant, (ttft, gaps) in arrivals.latencies.items():
        row: dict[str, object] = {"engine": variant.engine, "variant": variant.name}
        for name, seconds in (("TTFT", ttft), ("gap", gaps)):
            for share in (0.5, 0.95):
                row[f"{name} p{share * 100:.0f}"] = f"{quantile(seconds, share) * 1e3:.0f}"
        rows.append(row)
    return rows
