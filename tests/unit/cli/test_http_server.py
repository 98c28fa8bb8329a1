"""How a server ends."""

import asyncio
import signal
import socket
from collections.abc import Iterator

import httpx2
import pytest

from carpool.cli.http_server import HttpServer
from carpool.worker.client import WorkerClient
from carpool.worker.config import WorkerConfig
from tests.unit.gateway.serving import app_of
from tests.unit.worker.echo import EMBED, Lives, LocalLife, settled


class OneLife(Lives):
    """No second worker can be started."""

    async def __call__(self, config: WorkerConfig) -> LocalLife:
        if self.all:
            raise OSError("out of processes")
        return await super().__call__(config)


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


async def test_a_worker_that_is_given_up_ends_the_server_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    lives = OneLife()
    config = WorkerConfig(models=(EMBED,), restart_attempts=2, restart_backoff_s=0.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with WorkerClient(config, spawn=lives) as client:
            running = asyncio.create_task(HttpServer(app_of(client), listener, client, 1.0).run())
            await settled(client)
            lives.last.kill()
            async with asyncio.timeout(30):
                assert await running == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "carpool: the worker process does not stay up (no process: out of processes); the server ends"
    )


async def test_an_open_dashboard_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.gateway.dashboard._INTERVAL_S", 0.01)
    lives = OneLife()
    config = WorkerConfig(models=(EMBED,), restart_attempts=2, restart_backoff_s=0.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with WorkerClient(config, spawn=lives) as client, httpx2.AsyncClient() as http:
            running = asyncio.create_task(HttpServer(app_of(client), listener, client, 3600.0).run())
            await settled(client)
            async with asyncio.timeout(30), http.stream("GET", f"{url}/dashboard/feed") as feed:
                assert feed.status_code == 200
                lives.last.kill()
                await feed.aread()
                assert await running == 1
