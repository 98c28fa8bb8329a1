"""The application on a real port, in front of a real worker process with tiny models; and a raw client."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import msgspec
from numpy.typing import NDArray

from carpool.cache.config import CacheConfig
from carpool.cache.service import AnswerCache
from carpool.gateway.app import create_app
from carpool.gateway.config import GatewayConfig, KeyConfig
from carpool.gateway.key_ring import KeyRing
from carpool.gateway.services import Services
from carpool.inference_engine import Priority
from carpool.telemetry import Registry
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.process import WorkerProcess
from carpool.worker.protocol import Embed
from tests.unit.encoders import tiny_checkpoints
from tests.unit.gateway.serving import CHAT_PATH, listening
from tests.unit.models.tiny_llama import TinyLlama

CONTEXT = 2048
TALKER, SPARE, EMBEDDER = "talker", "spare", "embedder"
WORKER_GAUGES = ("carpool_sequences_running", "carpool_sequences_waiting", "carpool_kv_blocks_used")


def tiny_models(directory: Path) -> tuple[ModelConfig, ...]:
    """Two random Llamas that talk for as long as they may, and a random embedding model."""
    llama = TinyLlama()
    llama.metadata["llama.context_length"] = CONTEXT
    path = str(llama.write(directory / "llama.gguf"))
    encoder = str(tiny_checkpoints.BY_NAME["bert-mean"].write(directory / "encoder"))
    options = {"weights": "f32", "kv_cache_bytes": 1 << 24}
    return (
        ModelConfig(reference=path, name=TALKER, options=options),
        ModelConfig(reference=path, name=SPARE, options=options),
        ModelConfig(reference=encoder, name=EMBEDDER, options={"precision": "f32"}),
    )


def key_of(name: str, **fields: Any) -> KeyConfig:
    """A key whose text is `sk-` and its name."""
    digest = hashlib.sha256(f"sk-{name}".encode()).hexdigest()
    return KeyConfig(hash=f"sha256:{digest}", name=name, **fields)


class RealService:
    """Use as an async context manager, which waits until every model is up."""

    def __init__(
        self, models: tuple[ModelConfig, ...], cache: CacheConfig, directory: Path, **config: Any
    ) -> None:
        """`config`: of the gateway."""
        self.processes: list[WorkerProcess] = []
        worker = WorkerConfig(
            models=models, num_threads=1, when_loading="wait", restart_backoff_s=0.01, restart_attempts=1000
        )
        self.may_start = asyncio.Event()
        """While it is not set, no further worker process is started."""
        self.may_start.set()
        self.registry = Registry()
        self.client = WorkerClient(worker, spawn=self._spawn)
        self.cache = AnswerCache.open(
            cache, data_dir=directory, embed=self._embed, embedder_id="tiny", registry=self.registry
        )
        app = create_app(GatewayConfig(**config), self.client, self.cache, self.registry)
        chat = next(route for route in app.routes if getattr(route, "path", None) == CHAT_PATH)
        self.services: Services = chat.app._app._services  # type: ignore[attr-defined]
        self.keys = next(
            keys for layer in app.user_middleware if isinstance(keys := layer.kwargs.get("keys"), KeyRing)
        )
        self._app = app
        self._parts = contextlib.AsyncExitStack()

    async def _spawn(self, config: WorkerConfig) -> WorkerProcess:
        await self.may_start.wait()
        process = await WorkerProcess.spawn(config)
        self.processes.append(process)
        return process

    async def _embed(self, texts: list[str]) -> NDArray[Any]:
        request = Embed(id=0, model=EMBEDDER, inputs=texts, priority=Priority.REALTIME)
        return (await self.client.embed(request)).vectors

    async def __aenter__(self) -> Self:
        await self._parts.enter_async_context(self.cache)
        await self._parts.enter_async_context(self.client)
        self.url = await self._parts.enter_async_context(listening(self._app))
        self.port = int(self.url.rpartition(":")[2])
        await self.up()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._parts.aclose()
        for process in self.processes:
            assert process.process.returncode is not None

    async def up(self) -> None:
        """Wait until every model is up, or not loaded."""
        version = -1
        while any(state.phase not in ("ready", "unloaded") for state in self.client.models.values()):
            assert all(state.phase != "failed" for state in self.client.models.values()), self.client.models
            version = await self.client.changed(version)

    def kill_worker(self) -> None:
        """kill -9."""
        os.kill(self.processes[-1].pid, signal.SIGKILL)

    def open_ends(self) -> dict[str, float]:
        """Every counter of something that has begun and not ended, where it is not zero."""
        services, client = self.services, self.client
        counters = {
            "HTTP places": services.admission.taken,
            "requests in flight": services.metrics.in_flight.value,
            "calls to the worker": client.open_requests,
            "answers that others may join": services.cache.stats().in_flight if services.cache else 0,
        }
        for _, limits in self.keys._keys:
            counters[f"requests of {limits.key.name}"] = limits._inside
        for name in client.models:
            counters[f"places at {name}"] = client._places.taken(name)
            counters[f"users of {name}"] = client.usage.open_requests(name)
        return {name: value for name, value in counters.items() if value}

    async def quiet(self) -> None:
        """Wait until nothing is open; a leak fails with its name."""
        try:
            async with asyncio.timeout(30):
                while self.open_ends():  # noqa: ASYNC110  # counters have no event
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError(f"left open: {self.open_ends()}") from None

    async def worker_quiet(self) -> None:
        """Wait until the worker tells that it holds nothing: its gauges come each second."""
        async with asyncio.timeout(30):
            while True:
                found = {
                    metric.name: sum(series.value for series in metric.series)
                    for _, snapshot in self.client.snapshots()
                    for metric in snapshot
                    if metric.name in WORKER_GAUGES
                }
                if len(found) == len(WORKER_GAUGES) and not any(found.values()):
                    return
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection that is cut, not closed in peace, when the block ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def send(self, data: bytes) -> "Outcome":
        """Send a request and read its whole reply."""
        async with self.connection() as (reader, writer):
            writer.write(data)
            return Outcome(await reader.read())


def http(path: str, body: Any = None, *, method: str = "POST", **headers: str) -> bytes:
    """A request; the reply ends with the connection. `body` may be bytes that are no JSON."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {"host": "localhost", "content-length": str(len(content)), "connection": "close", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {v}" for name, v in given.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Outcome:
    """A reply that was read to its end: exactly one of an answer and an error, or an `AssertionError`."""

    def __init__(self, raw: bytes) -> None:
        head, separator, body = raw.partition(b"\r\n\r\n")
        assert separator, f"no reply: {raw[:200]!r}"
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if self.headers.get("transfer-encoding") == "chunked":
            body = _dechunked(body)
        else:
            assert len(body) == int(self.headers["content-length"])
        self.body = body
        self.error: str | None = None
        """The code of the error it ended with."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            self._read_stream()
        elif self.status >= 400:
            self.error = msgspec.json.decode(body)["error"]["code"] or "without a code"
        if self.status in (429, 503):
            assert int(self.headers["retry-after"]) >= 1 or self.error == "model_unloaded"

    def json(self) -> Any:
        """The body."""
        return msgspec.json.decode(self.body)

    def _read_stream(self) -> None:
        """Chunks, and then either `[DONE]` or one error, and nothing after it."""
        assert self.body.endswith(b"\n\n"), self.body[-200:]
        *chunks, last = [line.removeprefix(b"data: ") for line in self.body[:-2].split(b"\n\n")]
        decoded = [msgspec.json.decode(chunk) for chunk in chunks]
        assert not any("error" in chunk for chunk in decoded)
        reasons = [c["finish_reason"] for chunk in decoded for c in chunk["choices"] if c["finish_reason"]]
        if last == b"[DONE]":
            assert len(reasons) == 1
        else:
            self.error = msgspec.json.decode(last)["error"]["code"]


def _dechunked(body: bytes) -> bytes:
    parts = []
    while True:
        size, separator, body = body.partition(b"\r\n")
        assert separator, "the reply was cut off"
        length = int(size, 16)
        parts.append(body[:length])
        assert body[length : length + 2] == b"\r\n", "the reply was cut off"
        body = body[length + 2 :]
        if length == 0:
            assert body == b"", "something came after the end"
            return b"".join(parts)
