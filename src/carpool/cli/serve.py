"""`carpool serve`: open the port, bring the models up behind it, drain on a signal."""

import argparse
import asyncio
import json
import logging
import signal
import socket
import sys
from types import FrameType

import numpy as np
import uvicorn
import uvloop
from fastapi import FastAPI
from numpy.typing import NDArray

from carpool.cache.service import AnswerCache
from carpool.cli.options import Commands, add_config, settings_of
from carpool.cli.progress import show_progress
from carpool.errors import StartError
from carpool.gateway.app import create_app
from carpool.gateway.config import GatewayConfig
from carpool.gateway.drain import Drain
from carpool.inference_engine import Priority
from carpool.settings import Settings
from carpool.telemetry import Registry
from carpool.worker.client import WorkerClient
from carpool.worker.protocol import Embed

_BACKLOG = 2048


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("serve", help="serve models behind one OpenAI-compatible port")
    add_config(parser)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 8000)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; 0 after draining. Raises `StartError`."""
    settings = settings_of(arguments, host=arguments.host, port=arguments.port)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("carpool").setLevel(logging.INFO)
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    registry = Registry()
    gateway_config = settings.gateway_config()
    worker_config = settings.worker_config()
    listener = _listen(gateway_config)
    client = WorkerClient(worker_config)
    embedder = next(
        (m for m in worker_config.models if settings.cache.embedder in (m.name, *m.aliases)), None
    )

    async def embed(texts: list[str]) -> NDArray[np.float32]:
        request = Embed(id=0, model=settings.cache.embedder, inputs=texts, priority=Priority.REALTIME)
        return (await client.embed(request)).vectors

    cache = AnswerCache.open(
        settings.cache,
        data_dir=worker_config.model_dir,
        embed=embed,
        embedder_id=embedder.reference if embedder else "none",
        registry=registry,
    )
    app = create_app(gateway_config, client, cache, registry)
    async with cache, client:
        return await _Server(app, listener, client, worker_config.drain_s).run()


def _listen(config: GatewayConfig) -> socket.socket:
    """The listening socket, so that a port in use is told before anything is loaded."""
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        raise StartError(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from None
    return listener


class _Server(uvicorn.Server):
    """uvicorn with our endings: signals drain and exit 0, a model that fails to come up exits 2."""

    def __init__(self, app: FastAPI, listener: socket.socket, client: WorkerClient, drain_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(drain_s)),
                lifespan="on",
            )
        )
        self._drain: Drain = app.state.drain
        self._listener = listener
        self._client = client

    async def run(self) -> int:  # type: ignore[override]  # uvicorn's own starts an event loop
        """Serve until a signal or until a model fails to come up."""
        # uvicorn raises a caught signal again when it is done; the exit status is ours to choose.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _ignore)
        host, port = self._listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"listening on {url}", flush=True)
        watch = asyncio.create_task(self._come_up(url))
        try:
            await self.serve(sockets=[self._listener])
        finally:
            watch.cancel()
            await asyncio.wait({watch})
        if not watch.cancelled() and (error := watch.exception()) is not None:
            raise error
        return 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains: new requests are refused, running ones end; the second does not wait."""
        self._drain.begin()
        super().handle_exit(sig, frame)

    async def _come_up(self, url: str) -> None:
        try:
            await show_progress(self._client)
        except StartError:
            self.should_exit = True
            raise
        print(_welcome(url, self._client), flush=True)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing, in Python: an ignored signal would not be delivered to uvicorn's handler at all."""


def _welcome(url: str, client: WorkerClient) -> str:
    """What to do now, with a line that works when pasted."""
    chat = next((m.name for m in client.models.values() if m.task == "generate"), None)
    embed = next((m.name for m in client.models.values() if m.task == "embed"), None)
    if chat is not None:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        path, body = "chat/completions", json.dumps({"model": chat, "temperature": 0, "messages": question})
    else:
        path, body = "embeddings", json.dumps({"model": embed, "input": "Many requests share one ride."})
    return (
        f"ready on {url}  (dashboard: {url}/dashboard)\n"
        f"curl {url}/v1/{path} -H 'content-type: application/json' -d '{body}'"
    )
