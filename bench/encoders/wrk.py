"""The load generator: Debian's `wrk`, one thread, each connection asking again as soon as it is answered."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("post.lua")
TIMEOUT_S = 900
"""Longer than any run: wrk also counts a connection that has nothing left to send as timed out."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    failed: int
    """Requests without an answer, or with one that is not 2xx."""
    p50: float
    p95: float
    p99: float
    """Latencies, in ms; 0 where all of a number of requests were answered."""

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return (self.requests - self.failed) / self.seconds


def require_wrk() -> None:
    """End the program unless wrk is installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("the load generator is missing: apt-get install -y wrk")


@contextmanager
def load(
    url: str, bodies: Sequence[dict[str, Any]], *, connections: int, seconds: float, limit: int = 0
) -> Iterator["Running"]:
    """Load a URL, for the length of the block or until its end.

    It lasts `seconds`. With a `limit`, so many requests at most are sent within that time, and it lasts until
    the last of them is answered.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(body) + "\n" for body in bodies)
        file.flush()
        lasts = TIMEOUT_S if limit else seconds
        command = ["wrk", "-t1", f"-c{connections}", f"-d{lasts:.0f}s", f"--timeout={TIMEOUT_S}s"]
        process = subprocess.Popen(
            [*command, "-s", str(SCRIPT), url, "--", file.name, str(limit), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Running(process)
        finally:
            process.kill()
            process.wait()


class Running:
    """A wrk under way."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    def result(self) -> Load:
        """What it saw, waiting for its end."""
        output, _ = self._process.communicate()
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if not lines:
            raise SystemExit(f"wrk failed:\n{output}")
        return Load(**json.loads(lines[-1]))


def measure(
    url: str, bodies: Sequence[dict[str, Any]], *, connections: int, seconds: float, limit: int = 0
) -> Load:
    """Load a URL and wait for the end, as `load`."""
    with load(url, bodies, connections=connections, seconds=seconds, limit=limit) as running:
        return running.result()
