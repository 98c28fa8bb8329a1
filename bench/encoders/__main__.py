"""`python -m bench.encoders`: embeddings over HTTP, all in one run; writes bench/results/encoders.*.

Every contestant serves all-MiniLM-L6-v2 on two threads in an environment of its own, made on the first run in
`bench/.venvs`. The load comes from Debian's `wrk`. Contestants take turns, load by load; whoever is not asked
is stopped (SIGSTOP). Needs `apt-get install -y wrk`.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.encoders import ingest, report, wrk
from bench.encoders.contestants import CONTESTANTS, LITSERVE, Server
from bench.encoders.workload import (
    BULK_CALL,
    BULK_CONNECTIONS,
    BULK_TEXTS,
    CONNECTIONS,
    REFERENCES,
    THREADS,
    WORDS,
    bulk_bodies,
    bulk_texts,
    single_bodies,
)
from bench.inference_engine_report import RESULTS
from carpool.models.reference import ModelReference
from carpool.models.source import DEFAULT_DIRECTORY, fetch
from carpool.models.starter import EMBEDDING_MODEL
from carpool.runtimes.openvino.device import default_precision

COMPARED_TEXTS = 200
WARM_UP_S = 1


def log(line: str) -> None:
    """Tell how it goes."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def start(servers: dict[str, Server], names: list[str], model: Path) -> None:
    """Add the servers that come up, one after another, paused; each when its process starts."""
    for name in names:
        try:
            server = Server(CONTESTANTS[name], model)
        except (OSError, subprocess.CalledProcessError) as error:
            log(f"{name} does not install here: {error}")
            continue
        servers[name] = server
        try:
            server.wait_up()
        except RuntimeError as error:
            log(f"{name} does not start here: {error}")
            servers.pop(name).end()
            continue
        server.pause()
        log(f"{name} is up")


def cosines(servers: dict[str, Server], model: Path) -> dict[str, tuple[float, float]]:
    """Mean and lowest cosine of each server's vectors with PyTorch's in fp32."""
    texts = bulk_texts(COMPARED_TEXTS)
    script = Path(__file__).with_name("reference.py")
    answer = subprocess.run(
        [LITSERVE.python(), script, model],
        input=json.dumps(texts),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    expected = np.array(json.loads(answer.stdout.splitlines()[-1]))
    found = {}
    for name, server in servers.items():
        server.resume()
        rows = np.array(server.embed(texts))
        server.pause()
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
        each = (rows * expected).sum(axis=1) / norms
        found[name] = float(each.mean()), float(each.min())
    return found


def singles(servers: dict[str, Server], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """One text a request: medians over the rounds, by words and connections."""
    rows = []
    for words in WORDS:
        bodies = single_bodies(words)
        for connections in CONNECTIONS:
            loads: dict[str, list[wrk.Load]] = {name: [] for name in servers}
            for turn in range(rounds + 1):
                for name, server in servers.items():
                    server.resume()
                    span = seconds if turn else WARM_UP_S
                    measured = wrk.measure(server.url, bodies, connections=connections, seconds=span)
                    server.settle()
                    server.pause()
                    if turn:
                        loads[name].append(measured)
            for name, each in loads.items():
                row = {
                    "contestant": name,
                    "words": words,
                    "connections": connections,
                    "requests/s": median(load.rate for load in each),
                    "p50 ms": median(load.p50 for load in each),
                    "p95 ms": median(load.p95 for load in each),
                    "failed": sum(load.failed for load in each),
                }
                rows.append(row)
                log(json.dumps(row))
    return rows


def bulk(
    servers: dict[str, Server], model: Path, limit_s: float, rounds: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """10,000 texts of mixed lengths at once; and what OpenVINO does without a server, which takes turns, too.

    Medians over the rounds. Who is not done within the limit is sent no further calls, is rated by those that
    it was sent, and takes part in no further round.
    """
    bodies = bulk_bodies(bulk_texts())
    loads: dict[str, list[wrk.Load]] = {name: [] for name in servers}
    paddings = dict.fromkeys(servers, np.zeros(2))
    references: dict[str, list[float]] = {way: [] for way in REFERENCES}
    with Bare(model) as bare:
        for _ in range(rounds):
            for name, server in servers.items():
                if loads[name] and loads[name][-1].requests < len(bodies):
                    continue
                server.resume()
                before = tokens(server)
                load = wrk.measure(
                    server.url,
                    bodies,
                    connections=BULK_CONNECTIONS,
                    seconds=limit_s,
                    limit=len(bodies),
                )
                loads[name].append(load)
                server.settle()
                paddings[name] = paddings[name] + tokens(server) - before
                server.pause()
                log(f"bulk: {name} {load}")
            for way, rates in references.items():
                rates.append(BULK_TEXTS / bare.seconds(way))
                log(f"bulk: {way} {rates[-1]:.0f}/s")

    def sent(load: wrk.Load) -> int:
        return sum(len(each["input"]) for each in bodies[: load.requests])

    def row(rates: list[float]) -> dict[str, Any]:
        return {"texts/s": median(rates)} | {way: _share(rates, references[way]) for way in REFERENCES}

    rows = []
    for name, each in loads.items():
        found = {"contestant": name}
        found |= row([(sent(load) - load.failed * BULK_CALL) / load.seconds for load in each])
        found |= {"texts": sent(each[-1]), "failed": sum(load.failed for load in each)}
        if (counted := paddings[name]).any():
            found["padding"] = counted[1] / counted.sum()
        rows.append(found)
        log(json.dumps(found))
    return rows, [{"way": way} | row(rates) for way, rates in references.items()]


def _share(rates: list[float], others: list[float]) -> float:
    """The first in parts of the others, of the same rounds."""
    return median(rate / other for rate, other in zip(rates, others[: len(rates)], strict=True))


class Bare:
    """OpenVINO's process without a server, to be used as a context."""

    def __init__(self, model: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.encoders.bare", model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for way in REFERENCES:
            log(f"OpenVINO without a server, {way}: {self._answer()} tokens in a batch")

    def __enter__(self) -> "Bare":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def seconds(self, way: str) -> float:
        """How long it takes for the bulk's texts."""
        assert self._process.stdin is not None
        self._process.stdin.write(way + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit("the bare model does not run")
        return line.strip()


def tokens(server: Server) -> NDArray[np.float64]:
    """Carpool's computed tokens and padding so far, zeros for others. Workers report once a second."""
    if "carpool" not in server.contestant.name.lower():
        return np.zeros(2)
    time.sleep(1.5)
    page = server.get(f"{server.root}/metrics").decode().splitlines()

    def total(metric: str) -> float:
        return sum(float(line.rsplit(" ", 1)[1]) for line in page if line.startswith(metric + "{"))

    return np.array([total("carpool_encoder_tokens_total"), total("carpool_encoder_padding_tokens_total")])


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    # Where f32 is the default, it needs no row of its own.
    everybody = [name for name in CONTESTANTS if name != "carpool-f32" or default_precision() != "f32"]
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=everybody)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--bulk-limit",
        type=float,
        default=40.0,
        help="after so many seconds a contestant gets no more of the bulk",
    )
    parser.add_argument(
        "--parts", nargs="*", choices=("singles", "bulk", "ingest"), default=["singles", "bulk", "ingest"]
    )
    arguments = parser.parse_args()
    wrk.require_wrk()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives it
    began = time.monotonic()
    reference = ModelReference.parse(EMBEDDING_MODEL.reference)
    model = fetch(reference, DEFAULT_DIRECTORY.expanduser(), lambda _: None)
    figures: dict[str, Any] = {}
    servers: dict[str, Server] = {}
    try:
        start(servers, arguments.only, model)
        figures["cosines"] = cosines(servers, model)
        if "singles" in arguments.parts:
            figures["singles"] = singles(servers, arguments.seconds, arguments.rounds)
        if "bulk" in arguments.parts:
            figures["bulk"], figures["bare"] = bulk(servers, model, arguments.bulk_limit, arguments.rounds)
        if "ingest" in arguments.parts and "carpool" in servers:
            ours = servers["carpool"]
            ours.resume()
            figures["ingest"] = ingest.query_under_ingest(ours, 5 * arguments.seconds)
            log(json.dumps(figures["ingest"]))
            figures["event loop"] = ingest.event_loop_lag(ours)
            log(json.dumps(figures["event loop"]))
    finally:
        for server in servers.values():
            server.end()
    facts = {
        "command": " ".join(["python", "-m", "bench.encoders", *sys.argv[1:]]),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "default precision": default_precision(),
        "load average at the end": round(os.getloadavg()[0], 1),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "encoders.json").write_text(json.dumps(facts | figures, indent=1) + "\n")
    text = report.markdown(facts, figures)
    (RESULTS / "encoders.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
