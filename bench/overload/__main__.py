"""`python -m bench.overload`: the chat capacity of this machine, and then ten times as much, open loop.

The starter model, 32-token replies, no answer cache. Peak goodput: the best of several numbers of users in a
closed loop, up to the places at the model. Then requests come at ten times that rate, by chance and whatever
becomes of those before. Writes bench/results/overload.*.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench.gateway.__main__ import Server
from bench.inference_engine_report import poisson, quantile, write
from bench.k6.__main__ import wait_ready
from bench.overload.load import Load, Reply
from carpool.models.starter import CHAT_MODEL

PLACES = 32
TOKENS = 32
FACTOR = 10
QUESTIONS = Path(__file__).parents[2] / "src" / "carpool" / "cli" / "bench_questions.json"
_SETTLING_S = 6.0
"""Of each load, left out: users come one after another, and the places fill up."""


def bodies() -> list[bytes]:
    """Different questions, replies of equal length."""
    lists = json.loads(QUESTIONS.read_text())
    texts = [ways[0].replace("{}", topic) for topic in lists["topics"] for ways in lists["asks"]]
    random.Random(0).shuffle(texts)
    return [
        json.dumps(
            {
                "model": CHAT_MODEL.model_id,
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                "max_tokens": TOKENS,
                "ignore_eos": True,
            }
        ).encode()
        for text in texts
    ]


def row(name: str, replies: Sequence[Reply], since: float, until: float, cpu_s: float) -> dict[str, Any]:
    """A line of the table, for what ended between two times. `cpu_s`: of the gateway, for all of it."""
    counted = [reply for reply in replies if since <= reply.ended <= until]
    good = [reply.seconds for reply in counted if reply.status == 200]
    refused = [reply for reply in counted if reply.status == 503]
    waits = [reply.retry_after_s for reply in refused if reply.retry_after_s is not None]
    refusal_ms = [reply.seconds * 1e3 for reply in refused]
    return {
        "load": name,
        "goodput /s": len(good) / (until - since),
        "p50 s": quantile(good, 0.5),
        "p95 s": quantile(good, 0.95),
        "refused": len(refused),
        "with retry-after": f"{len(waits)} ({min(waits)} to {max(waits)} s)" if waits else "",
        "refused in ms, p50": quantile(refusal_ms, 0.5) if refused else "",
        "p95": quantile(refusal_ms, 0.95) if refused else "",
        "else": len(counted) - len(good) - len(refused),
        "gateway CPU s": cpu_s,
    }


async def measure(server: Server, port: int, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """All rows, and what they say."""
    load = Load(port, bodies())
    await load.closed(PLACES, 3)
    rows = []
    for users in (PLACES // 4, PLACES // 2, PLACES):
        before, began = server.cpu_s, time.perf_counter()
        replies = await load.closed(users, seconds, _SETTLING_S)
        used_s = server.cpu_s - before
        rows.append(row(f"{users} users", replies, began + _SETTLING_S, began + seconds, used_s))
        print(rows[-1], file=sys.stderr)
    accepted_ms = used_s / len(replies) * 1e3
    peak = max(each["goodput /s"] for each in rows)
    rate, open_s = FACTOR * peak, 2 * seconds
    before, began = server.cpu_s, time.perf_counter()
    replies = await load.open(poisson(rate, open_s, seed=0))
    used_s = server.cpu_s - before
    rows.append(
        row(f"{rate:.0f} requests/s, open loop", replies, began + _SETTLING_S, began + open_s, used_s)
    )
    print(rows[-1], file=sys.stderr)
    refused = sum(reply.status == 503 for reply in replies)
    refusal_ms = (used_s * 1e3 - accepted_ms * (len(replies) - refused)) / max(1, refused)
    full, over = rows[-2], rows[-1]
    return rows, (
        f"At {FACTOR} times the peak the goodput is {over['goodput /s'] / peak:.0%} of it, and the p95 of"
        f" what is accepted {over['p95 s'] / full['p95 s']:.2f} times that of {PLACES} users, who just fill"
        f" the places. CPU of the gateway for each refusal: {refusal_ms:.2f} ms beside a model that keeps"
        " every core and its caches busy (`python -m bench.gateway` measures it alone).\n"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=26, help="of each load, twice as much of the last")
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"CARPOOL_CACHE__MODE": "off", "CARPOOL_WORKER__MAX_REQUESTS_PER_MODEL": str(PLACES)}
    process = subprocess.Popen(
        [sys.executable, "-m", "carpool", "serve", "--port", str(port)],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, process)
        rows, verdict = uvloop.run(measure(Server(url, process.pid), port, arguments.seconds))
    finally:
        process.terminate()
        process.wait(60)
    notes = (
        f"SmolLM2-135M-Instruct, replies of {TOKENS} tokens, no answer cache, {PLACES} places at the model"
        " (`worker.max_requests_per_model`); the load generator runs on the same machine. Latencies count"
        f" from when a request was due. The first {_SETTLING_S:.0f} s of each load are left out.\n\n"
        + verdict
    )
    write("overload", rows, notes)


if __name__ == "__main__":
    main()
