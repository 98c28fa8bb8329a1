"""What a task costs besides its model: throughput with a no-op, where the time goes, and memory.

    python -m bench.inference_engine_overhead [--tasks 1000000]

All of it, the callers and the model's thread included, shares one core.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.inference_engine_report import write
from carpool.inference_engine import InferenceEngine

CLIENTS = 256


def synchronous(items: list[int]) -> list[int]:
    """A no-op that runs in the model thread."""
    return items


async def asynchronous(items: list[int]) -> list[int]:
    """A no-op that runs on the event loop of the model thread."""
    return items


def resident_mib() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


async def closed_loop(model: Any, tasks: int) -> dict[str, float]:
    """256 callers, each submitting its next item when it has the last one's result."""
    batches: list[int] = []
    async with InferenceEngine[int, int](model, observe=lambda event: batches.append(event.items)) as engine:

        async def caller(count: int) -> None:
            for item in range(count):
                await engine.submit(item)

        await asyncio.gather(*(caller(20) for _ in range(CLIENTS)))
        batches.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(tasks // CLIENTS) for _ in range(CLIENTS)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": tasks / wall, "cpu": tasks / cpu, "batch": statistics.mean(batches)}


def profile(tasks: int) -> str:
    """Where the time goes, by function."""
    profiler = cProfile.Profile()
    profiler.runcall(asyncio.run, closed_loop(synchronous, tasks))
    stats = pstats.Stats(profiler)
    total = stats.total_tt  # type: ignore[attr-defined]
    spent = sorted(stats.stats.items(), key=lambda entry: -entry[1][2])  # type: ignore[attr-defined]
    lines = []
    for (file, _, function), (_, _, own, _, _) in spent[:12]:
        lines.append(f"- {100 * own / total:4.1f} % {Path(file).name if file != '~' else ''} {function}")
    return "\n".join(lines)


async def memory(tasks: int) -> list[dict[str, Any]]:
    """Resident memory while a million tasks go through."""
    rows = []
    async with InferenceEngine[int, int](synchronous) as engine:

        async def caller(count: int) -> None:
            for item in range(count):
                await engine.submit(item)

        for done in range(1, 11):
            await asyncio.gather(*(caller(tasks // 10 // CLIENTS) for _ in range(CLIENTS)))
            rows.append({"tasks": done * tasks // 10, "resident MiB": resident_mib()})
    return rows


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000_000, help="tasks of the memory run")
    parser.add_argument(
        "--rounds", type=int, default=5, help="repetitions of each rate, medians are reported"
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = []
    for loop_name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        for model in (synchronous, asynchronous):
            rounds = [run(closed_loop(model, 100_000)) for _ in range(options.rounds)]
            rows.append(
                {
                    "event loop": loop_name,
                    "no-op model": model.__name__,
                    "tasks/s of wall time": statistics.median(r["wall"] for r in rounds),
                    "tasks/s of CPU time": statistics.median(r["cpu"] for r in rounds),
                    "mean batch": statistics.median(r["batch"] for r in rounds),
                }
            )
    growth = uvloop.run(memory(options.tasks))
    notes = (
        f"{CLIENTS} callers in a closed loop, on one core with the model's thread.\n\n"
        f"Memory over {options.tasks:,} tasks: {growth[0]['resident MiB']:.1f} MiB after a tenth, "
        f"{growth[-1]['resident MiB']:.1f} MiB at the end.\n\n"
        f"Own time by function (asyncio, model in its thread, under cProfile):\n\n{profile(50_000)}\n"
    )
    write("inference_engine_overhead", rows, notes)


if __name__ == "__main__":
    main()
