"""Carpool's batching core against LitServe, `batched` and Ray `@serve.batch`, all over HTTP.

    python -m bench.inference_engine_compare [--seconds 5] [--rounds 3]

Makes an environment with the contestants in `bench/.venvs/batching` on its first run. Every contestant serves
the same model function (see `bench/inference_engine_compare_servers.py`) in processes of its own and gets the
same open-loop arrivals over kept-alive connections. Then 400 requests come at once with every fiftieth item
poisoned, and then 200 clients hang up while the model is busy with 800 others. The contestants take turns in
every round; medians over the rounds are reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

from bench.inference_engine_report import poisson, quantile, write

VENV = Path(__file__).parent / ".venvs" / "batching"
PACKAGES = ["litserve==0.2.19", "batched==0.1.5", "ray[serve]==2.60.0", "numpy", "matplotlib"]
CONTESTANTS = ("carpool", "litserve", "batched", "ray")
RATES = (20, 100, 300)
SHARES = ("healthy failed by a neighbour", "abandoned yet computed")


class Client:
    """Kept-alive HTTP/1.1 connections to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, item: int) -> tuple[int, Any]:
        """Status and answer for one item; cancelling it hangs up."""
        connection = (
            self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        )
        reader, writer = connection
        try:
            body = json.dumps({"item": item}).encode()
            writer.write(
                b"POST /predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(body) + body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if "content-length:" in head:
                answer = await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
            else:
                answer = b""
                while size := int(await reader.readline(), 16):
                    answer += (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
        except BaseException:
            writer.close()
            raise
        self._free.append(connection)
        status = int(head.split()[1])
        return status, json.loads(answer) if status == 200 else answer

    def close(self) -> None:
        """Hang up everywhere."""
        for _, writer in self._free:
            writer.close()


async def until_up(client: Client) -> None:
    """Wait for the first answer."""
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.post(1))[0] == 200:
                    return
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(0.2)


async def open_loop(client: Client, rate: float, seconds: float) -> list[float]:
    """Latencies in ms under Poisson arrivals, from when a request was due."""
    latencies: list[float] = []

    async def request(at: float, item: int) -> None:
        await client.post(item)
        latencies.append((time.perf_counter() - at) * 1e3)

    started = time.perf_counter()
    requests = []
    for item, arrival in enumerate(poisson(rate, seconds, seed=11)):
        at = started + arrival
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        requests.append(asyncio.create_task(request(at, item)))
    await asyncio.gather(*requests)
    return latencies


async def poisoned(client: Client) -> float:
    """The share of healthy items that fail among 400 at once, every fiftieth of them poisoned."""
    items = [-item if item % 50 == 0 else item for item in range(1, 401)]
    answers = await asyncio.gather(*(client.post(item) for item in items), return_exceptions=True)
    healthy = [answer for item, answer in zip(items, answers, strict=True) if item > 0]
    return sum(isinstance(answer, BaseException) or answer[0] != 200 for answer in healthy) / len(healthy)


async def saturated(client: Client, seconds: float, callers: int = 128) -> float:
    """Requests per second of callers who ask again at once."""
    until = time.perf_counter() + seconds
    served = 0

    async def caller() -> None:
        nonlocal served
        while time.perf_counter() < until:
            await client.post(1)
            served += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return served / seconds


async def hang_up(client: Client, log: Path) -> float:
    """How many of the requests were computed whose clients hung up while others occupied the model."""
    kept = [asyncio.create_task(client.post(item)) for item in range(1_000_000, 1_000_800)]
    await asyncio.sleep(0.050)
    left = [asyncio.create_task(client.post(item)) for item in range(2_000_000, 2_000_200)]
    await asyncio.sleep(0.150)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.gather(*kept)
    await client.post(1)  # whatever was queued before has been computed now
    lines = (await asyncio.to_thread(log.read_text)).splitlines()
    return sum(2_000_000 <= int(line) < 2_000_200 for line in lines) / len(left)


def medians(measured: list[dict[str, float]]) -> dict[str, Any]:
    """Every measurement's median; shares as per cent."""
    row: dict[str, Any] = {key: statistics.median(each[key] for each in measured) for key in measured[0]}
    return row | {key: f"{row[key]:.0%}" for key in SHARES}


async def contest(name: str, seconds: float) -> dict[str, float]:
    """All measurements of one contestant."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "computed"
        script = Path(__file__).with_name("inference_engine_compare_servers.py")
        server = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
            [VENV / "bin" / "python", script, name, str(port), log],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"},
        )
        client = Client(port)
        try:
            await until_up(client)
            row: dict[str, float] = {}
            for rate in RATES:
                latencies = await open_loop(client, rate, max(seconds, 100 / rate))
                row[f"p50 ms at {rate}/s"] = quantile(latencies, 0.5)
                row[f"p99 ms at {rate}/s"] = quantile(latencies, 0.99)
            row["requests/s at most"] = await saturated(client, seconds)
            row["healthy failed by a neighbour"] = await poisoned(client)
            row["abandoned yet computed"] = await hang_up(client, log)
        finally:
            client.close()
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
    return row


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=CONTESTANTS)
    options = parser.parse_args()
    if not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True)
        subprocess.run([VENV / "bin" / "python", "-m", "pip", "install", "-q", *PACKAGES], check=True)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    for _ in range(options.rounds):
        for name in list(rounds):
            try:
                rounds[name].append(asyncio.run(contest(name, options.seconds)))
            except TimeoutError:
                print(f"{name} did not start here", file=sys.stderr)
                del rounds[name]
    rows = [{"library": name} | medians(measured) for name, measured in rounds.items()]
    notes = (
        "All over HTTP, one server process for the app; batches of 32, each library's default wait (Carpool "
        "eager, LitServe 0 ms, batched 5 ms, Ray 10 ms). The model takes 4 ms a call and 0.25 ms an item."
    )
    write(
        "inference_engine_compare",
        rows,
        notes,
    )


if __name__ == "__main__":
    main()
