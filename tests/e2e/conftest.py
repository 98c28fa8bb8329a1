"""Real servers: `carpool serve` in its own process, on the real starter models."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.server import Server, free_port

Start = Callable[..., Server]


@pytest.fixture(scope="session")
def start(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """A function that starts servers, all ended at the end. Each has a cache file and settings of its own.

    A question's vector may take its time: on a busy machine it would take longer than the budget of a lookup.
    """
    servers: list[Server] = []

    def _start(*args: str, settings: object = None, env: Mapping[str, str] | None = None) -> Server:
        directory = tmp_path_factory.mktemp("server")
        config = directory / "carpool.yaml"
        config.write_text(json.dumps(settings or {}))  # JSON is YAML
        server = Server(
            ["--config", str(config), *args],
            {
                "CARPOOL_MODEL_DIR": str(model_directory),
                "CARPOOL_CACHE__PATH": str(directory / "answers.sqlite3"),
                "CARPOOL_CACHE__LOOKUP_BUDGET_MS": "10000",
                "CARPOOL_KEYS_FILE": str(directory / "keys.json"),
                **(env or {}),
            },
            free_port(),
        )
        servers.append(server)
        return server

    yield _start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.stop()


@pytest.fixture(scope="session")
def server(start: Start) -> Server:
    """One server with no other settings, shared by tests that leave it as they found it."""
    return start().wait_ready()
