"""The worker process: one session over the socket it inherits, for as long as its parent lives."""

import asyncio
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import uvloop

from carpool.worker.config import WorkerConfig
from carpool.worker.framing import READ_BUFFER_BYTES, FrameWriter
from carpool.worker.host import ModelHost
from carpool.worker.loading import FileLoader
from carpool.worker.session import Session

_log = logging.getLogger(__name__)


def main() -> None:
    """Run a worker: `python -m carpool.worker FD CONFIG`, with a socket's number and `WorkerConfig.to_json`.

    It ends with its socket, so it never outlives its parent. SIGINT and SIGTERM, which a supervisor may send
    to all processes of a service, are the parent's to act on.
    """
    descriptor, config = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: worker: %(message)s")
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    status = 1
    try:
        uvloop.run(_serve(socket.socket(fileno=int(descriptor)), WorkerConfig.from_json(config)))
        status = 0
    except Exception:
        _log.exception("it ends")
    # Nobody is left to work for: a forward pass or a compilation in a thread is not waited for.
    sys.stderr.flush()
    os._exit(status)


async def _serve(connection: socket.socket, config: WorkerConfig) -> None:
    loop = asyncio.get_running_loop()
    # For templates and tokenising; forward passes and loads have threads of their own.
    loop.set_default_executor(ThreadPoolExecutor(config.threads, thread_name_prefix="text"))
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=READ_BUFFER_BYTES)
    await Session(ModelHost(config, FileLoader()), reader, FrameWriter(writer)).run()
