"""A gateway as `carpool serve` runs it, before the no-op worker.

`python -m bench.gateway.server PORT PLACES`

Its models: `chat` and `stream`, whose replies come at once and step by step; `kept`, the same with the answer
cache; `full`, which has one place and never gives it back; `embed`. PLACES is
`gateway.max_concurrent_requests`.
"""

import asyncio
import socket
import sys

import numpy as np
import uvloop
from numpy.typing import NDArray

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.cli.http_server import HttpServer, create_app
from carpool.cli.logs import log_to_stderr
from carpool.garbage import collect_seldom
from carpool.gateway.config import GatewayConfig
from carpool.telemetry import Registry
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.framing import READ_BUFFER_BYTES, FrameWriter
from carpool.worker.process import WorkerProcess

STREAM_TOKENS = 256
STEP_S = 0.01


def models() -> tuple[ModelConfig, ...]:
    """See the module."""
    return (
        ModelConfig(reference="pypi:chat==1", name="chat", cache="off"),
        ModelConfig(reference="pypi:kept==1", name="kept", cache="exact"),
        ModelConfig(
            reference="pypi:stream==1",
            name="stream",
            cache="off",
            options={"tokens": STREAM_TOKENS, "step_s": STEP_S},
        ),
        ModelConfig(
            reference="pypi:full==1",
            name="full",
            cache="off",
            max_concurrent_requests=1,
            options={"hold": True},
        ),
        ModelConfig(reference="pypi:embed==1", name="embed", options={"task": "embed"}),
    )


async def spawn(config: WorkerConfig) -> WorkerProcess:
    """As `WorkerProcess.spawn`, another program."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.gateway.noop_worker", str(theirs.fileno()), config.to_json()),
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=READ_BUFFER_BYTES)
    return WorkerProcess(reader, FrameWriter(writer), process)


async def _no_vectors(texts: list[str]) -> NDArray[np.float32]:
    raise NotImplementedError(f"{len(texts)} texts: nothing is matched by meaning here")


async def serve(port: int, places: int) -> None:
    """Until a signal."""
    registry = Registry()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(2048)
    client = WorkerClient(WorkerConfig(models=models()), spawn=spawn)
    cache = AnswerCache(
        CacheConfig(store="memory"), embed=_no_vectors, store=MemoryStore(), registry=registry
    )
    async with cache, client:
        app = create_app(GatewayConfig(max_concurrent_requests=places), client, cache, registry)
        collect_seldom()
        await HttpServer(app, listener, client, 5.0).run()


if __name__ == "__main__":
    log_to_stderr()
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
