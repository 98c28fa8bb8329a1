"""A real `carpool serve` in its own process."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import httpx2

START_TIMEOUT_S = 240
STOP_TIMEOUT_S = 60


def free_port() -> int:
    """A TCP port nobody listens on just now, and no other process of `pytest -n` is given meanwhile."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port // 2 % count == number % count:  # Linux gives odd ones first
            return port


def metric_sum(page: str, name: str) -> float:
    """Sum of a counter or gauge over its labels in Prometheus' text format."""
    lines = (line.rsplit(" ", 1) for line in page.splitlines())
    return sum(float(value) for label, value in lines if label.split("{")[0] == name)


class Server:
    """A running `carpool serve`. Its output is collected; `wait_ready` waits for the line that says so."""

    def __init__(self, args: list[str], env: Mapping[str, str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.cache_path = Path(env["CARPOOL_CACHE__PATH"])
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "carpool", "serve", "--port", str(port), *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **env},
        )
        self._news = threading.Condition()
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def output(self) -> str:
        """All it has printed so far."""
        return "\n".join(self.lines)

    def wait_line(self, text: str) -> str:
        """The first line with this text, waiting for it. Fails when the process ends without it."""
        with self._news:
            found = self._news.wait_for(
                lambda: any(text in line for line in self.lines) or not self._reader.is_alive(),
                timeout=START_TIMEOUT_S,
            )
            line = next((line for line in self.lines if text in line), None)
        assert found, f"no line with {text!r} in:\n{self.output}"
        assert line is not None, f"no line with {text!r} in:\n{self.output}"
        return line

    def wait_ready(self) -> "Server":
        """Wait until every model is up."""
        self.wait_line("ready on")
        return self

    def client(self, **headers: str) -> httpx2.Client:
        """An HTTP client for this server."""
        return httpx2.Client(base_url=self.url, headers=headers, timeout=120)

    def wait_metric(self, name: str, at_least: float) -> str:
        """The metrics page once the metric's sum is at least this: workers report each second."""
        give_up = time.monotonic() + 30
        with self.client() as client:
            while True:
                page = client.get("/metrics").text
                if metric_sum(page, name) >= at_least:
                    return page
                assert time.monotonic() < give_up, f"{name} stayed below {at_least}"
                time.sleep(0.1)

    def stop(self, signum: int = signal.SIGINT) -> int:
        """Signal it, wait for its end and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        code = self.process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code
