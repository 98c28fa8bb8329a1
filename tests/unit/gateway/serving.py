"""The application over HTTP: in memory for most tests, on a real port where the server matters."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.gateway.app import create_app
from carpool.gateway.config import GatewayConfig
from carpool.telemetry import Registry
from carpool.worker.client import WorkerClient
from tests.unit.gateway.local_client import LocalClient

CHAT_PATH = "/v1/chat/completions"


class Service:
    """An application and what it is made of."""

    def __init__(
        self,
        config: GatewayConfig | None = None,
        client: LocalClient | None = None,
        *,
        cached: bool = False,
        max_bytes: int = 2**29,
        cache: AnswerCache | None = None,
    ) -> None:
        """`cached`: with a cache that matches by repetition only, for want of an embedder."""
        self.client = client or LocalClient()
        self.registry = Registry()
        self.cache = cache
        if cached:
            self.cache = AnswerCache(
                CacheConfig(store="memory", max_bytes=max_bytes),
                embed=_no_embedder,
                store=MemoryStore(),
                registry=self.registry,
            )
        self.app: FastAPI = create_app(config or GatewayConfig(), self.client, self.cache, self.registry)

    def http(self, **headers: str) -> httpx2.AsyncClient:
        """An HTTP client that calls the application in memory."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://localhost:8000", headers=headers
        )

    def listening(self) -> "contextlib.AbstractAsyncContextManager[str]":
        """The URL of a real server with the application, for the length of the block."""
        return listening(self.app)


def app_of(client: WorkerClient, config: GatewayConfig | None = None) -> FastAPI:
    """The application before any client."""
    return create_app(config or GatewayConfig(), client, None, Registry())


@contextlib.asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """The URL of a real server with an application, for the length of the block."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, loop="none", timeout_graceful_shutdown=5)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        app.state.drain.begin()
        server.should_exit = True
        await serving


async def _no_embedder(texts: list[str]) -> Any:
    raise RuntimeError(f"no embedder for {len(texts)} texts")


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": "parrot", "messages": [{"role": "user", "content": text}], **fields}


def events(text: str) -> list[Any]:
    """The values of a stream's events; `[DONE]` as a string."""
    assert text.endswith("\n\n")
    lines = text[:-2].split("\n\n")
    assert all(line.startswith("data: ") for line in lines), text
    data = [line.removeprefix("data: ") for line in lines]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


class RawCall:
    """One ASGI call whose client can leave whenever the test likes."""

    def __init__(self, app: FastAPI, path: str, body: bytes, method: str = "POST") -> None:
        self.status = 0
        self.body = b""
        self.complete = False
        self._parts = asyncio.Event()
        self._gone = asyncio.Event()
        self._messages = [{"type": "http.request", "body": body, "more_body": False}]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "state": {},
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message["body"]
            self.complete = not message.get("more_body", False)
        self._parts.set()

    async def received(self, text: bytes) -> None:
        """Wait until the reply contains this."""
        async with asyncio.timeout(30):
            while text not in self.body:
                self._parts.clear()
                await self._parts.wait()

    async def leave(self) -> None:
        """The client is gone; returns when the application has seen it."""
        self._gone.set()
        async with asyncio.timeout(30):
            await self.task
