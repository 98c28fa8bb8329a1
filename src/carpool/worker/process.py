"""One life of a worker process: started by exec, spoken to over a socket pair, ended for certain."""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from carpool.worker.config import WorkerConfig
from carpool.worker.framing import READ_BUFFER_BYTES, FrameWriter

EXIT_TIMEOUT_S = 5.0
"""How long a worker may take to end after its socket closed, before it is killed."""

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


class Life(Protocol):
    """A running worker as the client sees it."""

    @property
    def reader(self) -> asyncio.StreamReader:
        """What the worker sends."""
        ...

    @property
    def writer(self) -> FrameWriter:
        """To the worker; closing it is how the worker is told to end."""
        ...

    async def wait(self) -> str:
        """Wait for the end and return how it came about, for people."""
        ...

    def kill(self) -> None:
        """End it now; does nothing if it has ended."""
        ...


Spawn = Callable[[WorkerConfig], Awaitable[Life]]


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker in a process of its own. It inherits standard error and one end of the socket pair."""

    reader: asyncio.StreamReader
    writer: FrameWriter
    process: asyncio.subprocess.Process

    @classmethod
    async def spawn(cls, config: WorkerConfig) -> "WorkerProcess":
        """Start the process. Raises `OSError` where the system cannot.

        Libraries that read their thread budget from the environment get one thread: the runtime's own pool,
        sized by `config.threads`, has the cores to itself.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-P", "-m", "carpool.worker", str(theirs.fileno()), config.to_json()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # a terminal's Ctrl-C is for the parent, which drains the worker
                    env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "TOKENIZERS_PARALLELISM": "false"},
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=READ_BUFFER_BYTES)
        except BaseException:
            ours.close()  # a process that started sees the end of its socket and exits
            raise
        return cls(reader, FrameWriter(writer), process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    async def wait(self) -> str:
        """Wait for the end; how it came about, such as "signal 9" or "exit status 1"."""
        status = await self.process.wait()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """End it now; does nothing if it has ended."""
        if self.process.returncode is None:
            self.process.kill()


async def end(life: Life) -> str:
    """Close the worker's socket and wait until it is gone, by force if it takes too long."""
    life.writer.close()
    try:
        async with asyncio.timeout(EXIT_TIMEOUT_S):  # `wait_for` may swallow a cancellation
            return await life.wait()
    except TimeoutError:
        life.kill()
        return await life.wait()
    except asyncio.CancelledError:
        life.kill()
        await life.wait()
        raise
