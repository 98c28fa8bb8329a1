"""What the batching core's benchmarks have in common: load, percentiles, and the files they leave."""

from __future__ import annotations

import json
import os
import platform
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """Its name, and the vector and matrix instructions that kernels ask for."""
    text = Path("/proc/cpuinfo").read_text()
    model = next(
        line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")
    )
    features = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
    return f"{model} ({' '.join(flag for flag in features if f' {flag}' in text)})"


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share (0 to 1) of the values does not exceed; nan without values."""
    return sorted(values)[int(share * (len(values) - 1))] if values else float("nan")


def poisson(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Arrival times of an open-loop load, in seconds; the same for every contestant."""
    chance = random.Random(seed)
    now = chance.expovariate(rate)
    while now < seconds:
        yield now
        now += chance.expovariate(rate)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


def write(
    name: str, rows: Sequence[dict[str, Any]], notes: str = "", python: str = "python", suffix: str = ""
) -> None:
    """Print the table of `bench.<name>`, and leave it and the rows in `bench/results/<name><suffix>`."""
    command = " ".join([python, "-m", f"bench.{name}", *sys.argv[1:]])
    load = f"{os.getloadavg()[0]:.1f}"
    cores = len(os.sched_getaffinity(0))
    python_version = platform.python_version()
    machine = f"{processor()}, {cores} cores, Python {python_version}, load average {load} at the end"
    text = f"# {name}\n\n`{command}` · {machine}\n\n{table(rows)}\n{notes}".rstrip() + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}{suffix}.md").write_text(text)
    (RESULTS / f"{name}{suffix}.json").write_text(
        json.dumps({"command": command, "machine": machine, "rows": rows, "notes": notes}, indent=1) + "\n"
    )
    print(text)
