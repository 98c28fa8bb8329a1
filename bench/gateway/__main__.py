"""`python -m bench.gateway`: CPU time of the gateway per request, per streamed token and per refusal.

A real gateway process before a worker that answers at once, beside a bare FastAPI route on the same HTTP
stack; `wrk` on the same machine asks. CPU is the gateway process's own, user and system time of all its
threads, from /proc. Writes bench/results/gateway.*.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.encoders import wrk
from bench.gateway.server import STEP_S, STREAM_TOKENS
from bench.inference_engine_report import write

CONNECTIONS = 50
STREAMS = (32, 256, 512)
"""The last ask for more tokens than a gateway process can send one by one."""
CHAT = "/v1/chat/completions"
_READY_TIMEOUT_S = 60


@dataclass
class Server:
    """A process that listens."""

    url: str
    pid: int

    @property
    def cpu_s(self) -> float:
        """What it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(module: str, path: str, *arguments: str) -> Iterator[Server]:
    """A server, ready when `path` answers anything but 503."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(port), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Server(f"http://127.0.0.1:{port}", process.pid)
        _wait_until_ready(server.url + path, process)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} does not get ready")


def chat(model: str, question: str = "Who rides?", **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": question},
    ]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 512, **fields}


def measure(
    name: str,
    server: Server,
    path: str,
    bodies: Sequence[dict[str, Any]],
    seconds: float,
    refused: bool = False,
) -> dict[str, Any]:
    """A line of the table: requests for so many seconds."""
    url = server.url + path
    wrk.measure(url, bodies[:1], connections=CONNECTIONS, seconds=1)
    before = server.cpu_s
    load = wrk.measure(url, bodies, connections=CONNECTIONS, seconds=seconds)
    used_s = server.cpu_s - before
    if load.failed != (load.requests if refused else 0):
        raise SystemExit(f"{name}: {load.failed} of {load.requests} requests were refused")
    return {
        "what": name,
        "CPU µs": used_s / load.requests * 1e6,
        "requests/s": load.requests / load.seconds,
        "p50 ms": load.p50,
        "p95 ms": load.p95,
    }


def measure_streams(
    name: str, server: Server, path: str, body: dict[str, Any], streams: int
) -> dict[str, Any]:
    """A line of the table: so many streams at a time, three rounds of them; its CPU is that of a token."""
    before = server.cpu_s
    load = wrk.measure(server.url + path, [body], connections=streams, seconds=600, limit=3 * streams)
    used_s = server.cpu_s - before
    if load.failed:
        raise SystemExit(f"{name}: {load.failed} of {load.requests} streams failed")
    tokens = load.requests * STREAM_TOKENS
    return {"what": name, "CPU µs": used_s / tokens * 1e6, "tokens/s": tokens / load.seconds}


@contextmanager
def held(server: Server) -> Iterator[None]:
    """One request to the model `full`, which is not answered."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(chat("full")).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + body)
        time.sleep(0.5)
        yield


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6, help="of each row")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    arguments = parser.parse_args()
    wrk.require_wrk()
    seconds = arguments.seconds
    rows: list[dict[str, Any]] = []

    def add(name: str, *what: Any, **how: Any) -> None:
        if arguments.only in name:
            rows.append(measure(name, *what, **how))
            print(rows[-1], file=sys.stderr)

    def add_streams(name: str, *what: Any) -> None:
        if arguments.only in name:
            rows.append(measure_streams(name, *what))
            print(rows[-1], file=sys.stderr)

    with ExitStack() as servers:
        bare = servers.enter_context(started("bench.gateway.bare", "/"))
        ours = servers.enter_context(started("bench.gateway.server", "/health/ready", "4096"))
        small = servers.enter_context(started("bench.gateway.server", "/health/ready", "1"))
        new = [chat("kept", f"Who takes ride {number}?") for number in range(40_000)]
        add("bare FastAPI: hash the body, answer from a dict", bare, "/", [chat("bare")], seconds)
        add("chat, the answer is kept: exact hit", ours, CHAT, [chat("kept")], seconds)
        add("chat, the worker answers", ours, CHAT, [chat("chat")], seconds)
        add("chat, the worker answers and the answer is kept", ours, CHAT, new, seconds)
        embed = {"model": "embed", "input": "Many requests share one ride.", "encoding_format": "base64"}
        add("embeddings, one input", ours, "/v1/embeddings", [embed], seconds)
        servers.enter_context(held(ours))
        servers.enter_context(held(small))
        add("refusal: the model is full", ours, CHAT, [chat("full")], seconds, refused=True)
        add("refusal: the server is full", small, CHAT, [chat("chat")], seconds, refused=True)
        streamed = chat("stream", stream=True)
        for streams in STREAMS:
            add_streams(f"bare FastAPI: an event, {streams} streams", bare, "/stream", chat("bare"), streams)
            add_streams(f"chat: a streamed token, {streams} streams", ours, CHAT, streamed, streams)
    columns = ["what", "CPU µs", "requests/s", "p50 ms", "p95 ms", "tokens/s"]
    notes = (
        f"{CONNECTIONS} connections in a closed loop, one gateway process, wrk on the same machine. CPU is"
        " that of the gateway process for each request or token. Streams: "
        f"{STREAM_TOKENS} tokens each, one every {STEP_S * 1e3:.0f} ms.\n"
    )
    write("gateway", [{column: row.get(column, "") for column in columns} for row in rows], notes)


if __name__ == "__main__":
    main()
