"""The HTTP server around the gateway: what it prints, how it ends."""

import asyncio
import json
import signal
import socket
import sys
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from carpool.cli.http_protocol import HttpProtocol
from carpool.cli.progress import show_progress
from carpool.errors import StartError
from carpool.gateway.app import create_app
from carpool.gateway.drain import Drain
from carpool.worker.client import WorkerClient

__all__ = ["HttpServer", "create_app"]


class HttpServer(uvicorn.Server):
    """uvicorn with our endings.

    Signals drain and exit 0, a worker that is given up exits 1, a model that fails to come up exits 2.
    """

    def __init__(self, app: FastAPI, listener: socket.socket, client: WorkerClient, drain_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who asks is told by the key
                timeout_graceful_shutdown=max(1, round(drain_s)),
                lifespan="on",
            )
        )
        self._drain: Drain = app.state.drain
        self._drain_s = drain_s
        self._signalled_s: float | None = None
        self._listener = listener
        self._client = client

    async def run(self) -> int:  # type: ignore[override]  # uvicorn's own starts an event loop
        """Serve until a signal (0), until a model fails to come up, or until the worker is given up (1)."""
        # uvicorn raises a caught signal again when it is done; the exit status is ours to choose.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _ignore)
        host, port = self._listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"listening on {url}", flush=True)
        watch = asyncio.create_task(self._watch(url))
        try:
            await self.serve(sockets=[self._listener])
        finally:
            watch.cancel()
            await asyncio.wait({watch})
            if self.force_exit:
                await self.lifespan.shutdown()  # which uvicorn then leaves out
            await self._client.stop(self._drain_left_s())
        return 0 if watch.cancelled() else watch.result()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains: new requests are refused, running ones end; the second does not wait."""
        if self._signalled_s is None:
            self._signalled_s = time.monotonic()
            print("draining, a second Ctrl-C stops at once", file=sys.stderr, flush=True)
        else:
            self.force_exit = True
        self._drain.begin()
        super().handle_exit(sig, frame)

    def _drain_left_s(self) -> float:
        """How long running requests may still take, by the one limit that all parts of a stop share."""
        if self.force_exit or self._signalled_s is None:
            return 0.0
        return max(0.0, self._signalled_s + self._drain_s - time.monotonic())

    async def _watch(self, url: str) -> int:
        try:
            await show_progress(self._client)
        except StartError:
            self._give_up()
            raise
        print(_welcome(url, self._client), flush=True)
        reason = await self._client.gave_up()
        print(f"carpool: {reason}; the server ends", file=sys.stderr, flush=True)
        self._give_up()
        return 1

    def _give_up(self) -> None:
        """End: endless streams, which the server would wait for, too."""
        self._drain.begin()
        self.should_exit = True


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing, in Python: an ignored signal would not be delivered to uvicorn's handler at all."""


def _welcome(url: str, client: WorkerClient) -> str:
    """What to do now, with a line that works when pasted."""
    chat = next((m.name for m in client.models.values() if m.task == "generate"), None)
    embed = next((m.name for m in client.models.values() if m.task == "embed"), None)
    welcome = f"ready on {url}  (dashboard: {url}/dashboard)"
    if chat is not None:
        question = [{"role": "user", "content": "Name the capital of France."}]
        path, body = "chat/completions", json.dumps({"model": chat, "temperature": 0, "messages": question})
    elif embed is not None:
        path, body = "embeddings", json.dumps({"model": embed, "input": "Many requests share one ride."})
    else:
        return welcome
    return f"{welcome}\ncurl {url}/v1/{path} -H 'content-type: application/json' -d '{body}'"
