"""Eager dispatch against the classic windows (8 or 50 ms, 32 or 10 ms), over load levels and length mixes.

    PYTHONPATH=src bench/.venvs/batching/bin/python -m bench.inference_engine_rules [--seconds 4]

(The environment with matplotlib, which `bench.inference_engine_compare` makes.)

The model is a timed stand-in: a call takes 4 ms and 0.02 ms for each padded token, outside the CPU as on an
accelerator, so that the rules are compared and not the noise of a busy machine. Arrivals are open loop and
the same for every rule. Writes a table and `docs/inference-engine-rules.svg`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.inference_engine_report import poisson, quantile, write
from carpool.inference_engine import BatchEvent, EngineConfig, InferenceEngine

CALL_MS, TOKEN_MS = 4.0, 0.02
RULES = {
    "eager 32": EngineConfig(max_batch_size=32),
    "window 8/50 ms": EngineConfig(max_batch_size=8, batch_wait_ms=50.0),
    "window 32/10 ms": EngineConfig(max_batch_size=32, batch_wait_ms=10.0),
}
MIXES: dict[str, Callable[[random.Random], int]] = {
    "all 16 tokens": lambda _: 16,
    "16 to 256 tokens": lambda chance: round(16 * 16 ** chance.random()),
}
LOADS = (5, 50, 200, 400, 800)


def model(lengths: list[int]) -> list[int]:
    """Takes as long as a padded batch on a device would."""
    time.sleep((CALL_MS + TOKEN_MS * len(lengths) * max(lengths)) / 1e3)
    return lengths


async def measure(config: EngineConfig, mix: str, rate: float, seconds: float) -> dict[str, Any]:
    """One rule at one load."""
    chance = random.Random(7)
    events: list[BatchEvent] = []
    latencies: list[float] = []
    async with InferenceEngine(model, config, observe=events.append) as engine:

        async def request(at: float, length: int) -> None:
            await engine.submit(length, cost=float(length))
            latencies.append((time.perf_counter() - at) * 1e3)

        started = time.perf_counter()
        requests = []
        for arrival in poisson(rate, seconds, seed=3):
            at = started + arrival
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            requests.append(asyncio.create_task(request(at, MIXES[mix](chance))))
        await asyncio.gather(*requests)
        elapsed = time.perf_counter() - started
    return {
        "mix": mix,
        "requests/s offered": rate,
        "served/s": len(latencies) / elapsed,
        "p50 ms": quantile(latencies, 0.5),
        "p99 ms": quantile(latencies, 0.99),
        "mean batch": len(latencies) / len(events),
        "padding": 1 - sum(e.cost * (1 - e.padding_share) for e in events) / sum(e.cost for e in events),
    }


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """The p50 and p99 of every rule over the load, one panel for each mix."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update(
        {"svg.hashsalt": "carpool", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, panels = plt.subplots(1, len(MIXES), figsize=(9, 3.6), sharey=True)
    colours = {"eager 32": "#0a7d55", "window 8/50 ms": "#c2571a", "window 32/10 ms": "#5b6abf"}
    for panel, mix in zip(panels, MIXES, strict=True):
        for rule, colour in colours.items():
            mine = [row for row in rows if row["rule"] == rule and row["mix"] == mix]
            loads = [row["requests/s offered"] for row in mine]
            panel.plot(
                loads, [row["p99 ms"] for row in mine], color=colour, marker="o", ms=4, label=f"{rule}, p99"
            )
            panel.plot(loads, [row["p50 ms"] for row in mine], color=colour, ls=":", label=f"{rule}, p50")
        panel.set(xscale="log", yscale="log", title=mix, xlabel="requests per second offered")
        panel.set_xticks(LOADS, [str(load) for load in LOADS])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("latency, ms")
    panels[0].set_yticks(
        [5, 10, 20, 50, 100, 200, 500, 1000], ["5", "10", "20", "50", "100", "200", "500", "1000"]
    )
    panels[-1].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    options = parser.parse_args()
    rows = [
        {"rule": rule} | asyncio.run(measure(config, mix, rate, max(options.seconds, 60 / rate)))
        for mix in MIXES
        for rate in LOADS
        for rule, config in RULES.items()
    ]
    write(
        "inference_engine_rules",
        rows,
        f"The model takes {CALL_MS:g} ms a call and {TOKEN_MS:g} ms a padded token.",
        python="PYTHONPATH=src bench/.venvs/batching/bin/python",
    )
    picture(rows, Path(__file__).parents[1] / "docs" / "inference-engine-rules.svg")


if __name__ == "__main__":
    main()
