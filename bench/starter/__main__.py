"""`python -m bench.starter`: generated tokens/s and embeddings/s on the starter models, in one run.

Contestants take turns, run by run, with equal threads; the first run of each size is not counted. Rates are
medians over wall time from the first submit, prefill and text work included. Writes bench/results/starter.*.
"""

import argparse
import json
import platform
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, cast

from bench.starter.workload import BATCHES, NEW_TOKENS, STREAMS, THREADS
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import CHAT_MODEL, EMBEDDING_MODEL

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
GENAI = "openvino-genai==2026.4.1.0"


@dataclass
class Contestant:
    """A subprocess that speaks `workload.answer`."""

    name: str
    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls, name: str, command: list[str]) -> "Contestant":
        """Start it and wait until its models are up."""
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        contestant = cls(name, process)
        contestant._read()
        return contestant

    def rate(self, task: str, size: int) -> float:
        """One run."""
        stdin = cast("IO[str]", self.process.stdin)
        stdin.write(json.dumps({"task": task, "size": size}) + "\n")
        stdin.flush()
        return float(self._read()["rate"])

    def _read(self) -> dict[str, float]:
        line = cast("IO[str]", self.process.stdout).readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}")
        return cast("dict[str, float]", json.loads(line))

    def end(self) -> None:
        """Close its input and wait for it."""
        self.process.communicate()


def _venv_python(name: str, requirement: str) -> str:
    """A Python with the contestant's package, in a venv of its own made on first use."""
    directory = HERE.parent / ".venvs" / name
    python = directory / "bin" / "python"
    if not (directory / ".installed").exists():
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
        (directory / ".installed").touch()
    return str(python)


def _compare(
    task: str, sizes: tuple[int, ...], contestants: list[Contestant], runs: int
) -> dict[str, list[float]]:
    """Median rate per contestant and size, the contestants taking turns."""
    table: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for size in sizes:
        rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
        for turn in range(runs + 1):
            for contestant in contestants:
                rate = contestant.rate(task, size)
                if turn:
                    rates[contestant.name].append(rate)
        for name, measured in rates.items():
            table[name].append(median(measured))
            print(
                f"{task} x{size} {name}: {median(measured):.0f}/s  {[round(r) for r in measured]}",
                file=sys.stderr,
            )
    for contestant in contestants:
        contestant.end()
    return table


def _markdown(title: str, sizes: tuple[int, ...], unit: str, table: dict[str, list[float]]) -> str:
    ours = next(iter(table.values()))
    head = f"| {title} | " + " | ".join(f"{size} {unit}" for size in sizes) + " |"
    rows = [
        f"| {name} | "
        + " | ".join(
            f"{rate:,.0f}" + ("" if rates is ours else f" ({mine / rate:.2f}x)")
            for rate, mine in zip(rates, ours, strict=True)
        )
        + " |"
        for name, rates in table.items()
    ]
    return "\n".join([head, "|---" * (len(sizes) + 1) + "|", *rows])


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text()
    model = next(
        line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")
    )
    features = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in text]
    return f"{model}, {' '.join(features)}"


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each size")
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_DIRECTORY)
    arguments = parser.parse_args()
    directory = arguments.model_dir.expanduser()

    def path(reference: str) -> str:
        return str(fetch(ModelReference.parse(reference), directory, lambda _: None))

    genai = [
        _venv_python("openvino-genai", GENAI),
        str(HERE / "genai_contestant.py"),
        path(CHAT_MODEL.reference),
    ]
    plain = [sys.executable, "-m", "bench.starter.openvino_contestant", path(EMBEDDING_MODEL.reference)]
    ours = [sys.executable, "-m", "bench.starter.carpool_contestant", str(directory)]

    generation = _compare(
        "generate",
        STREAMS,
        [
            Contestant.start("Carpool, GGUF", ours),
            Contestant.start("OpenVINO GenAI ContinuousBatchingPipeline, GGUF", genai),
        ],
        arguments.runs,
    )
    embedding = _compare(
        "embed",
        BATCHES,
        [
            Contestant.start("Carpool, callers with one text each", ours),
            Contestant.start("plain OpenVINO, bare loop over full batches", plain),
        ],
        arguments.runs,
    )

    RESULTS.mkdir(exist_ok=True)
    facts = {"cpu": _cpu(), "threads": THREADS, "python": platform.python_version(), "runs": arguments.runs}
    figures = {"generate": {"streams": STREAMS, **generation}, "embed": {"batch": BATCHES, **embedding}}
    (RESULTS / "starter.json").write_text(json.dumps({**facts, **figures}, indent=2) + "\n")
    report = f"""# Starter models

`python -m bench.starter --runs {arguments.runs}` on {facts["cpu"]}, {THREADS} threads.
Medians; in brackets how many times faster Carpool is.

SmolLM2-135M-Instruct, {NEW_TOKENS} new tokens each, greedy; generated tokens per second of wall time from the
first submit, prefill and text work included. Carpool's requests cross the border to its worker process.

{_markdown("tokens/s", STREAMS, "streams", generation)}

all-MiniLM-L6-v2, texts of about ten words; embeddings per second. Plain OpenVINO is handed full batches of
the given size; Carpool gets as many callers, each with one text at a time, and forms the batches itself.

{_markdown("embeddings/s", BATCHES, "at once", embedding)}
"""
    (RESULTS / "starter.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
