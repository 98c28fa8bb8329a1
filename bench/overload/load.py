"""A load generator that takes little of the machine it shares: prepared bytes on kept connections."""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import cast

_HEAD = re.compile(rb"HTTP/1\.1 (\d+) .*?\r\ncontent-length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)
_RETRY_AFTER = re.compile(rb"\r\nretry-after: (\d+)\r\n")


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended."""

    ended: float
    """By `time.perf_counter()`."""
    seconds: float
    """Since it was due."""
    status: int
    retry_after_s: int | None


class _Connection(asyncio.Protocol):
    """One request after another."""

    def __init__(self) -> None:
        self._data = b""
        self._waiting: asyncio.Future[tuple[int, int | None]] | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = False
        """By the server, which does so when nothing was asked for some seconds."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = _HEAD.match(self._data)
        if head is None or len(self._data) < head.end() + int(head[2]) or self._waiting is None:
            return
        retry_after = _RETRY_AFTER.search(head[0])
        self._data = b""
        self._waiting.set_result((int(head[1]), int(retry_after[1]) if retry_after else None))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((0, None))

    async def ask(self, request: bytes) -> tuple[int, int | None]:
        """Status and `retry-after` of the reply; 0: there was none."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting


class Load:
    """Asks one server."""

    def __init__(self, port: int, bodies: Iterable[bytes]) -> None:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        self._requests: Iterator[bytes] = cycle(
            [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
        )
        self._port = port
        self._idle: list[_Connection] = []

    async def ask(self, due: float) -> Reply:
        """Send the next request, on a connection that is free or new."""
        self._idle = [each for each in self._idle if not each.closed]
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        status, retry_after_s = await connection.ask(next(self._requests))
        if status:
            self._idle.append(connection)
        now = time.perf_counter()
        return Reply(now, now - due, status, retry_after_s)

    async def closed(self, users: int, seconds: float, settling_s: float = 0.0) -> list[Reply]:
        """Users who ask again as soon as they are answered, for so long; they come one after another."""
        end = time.perf_counter() + seconds
        replies: list[Reply] = []

        async def user(number: int) -> None:
            await asyncio.sleep(settling_s * number / users)
            while (now := time.perf_counter()) < end:
                replies.append(await self.ask(now))

        await asyncio.gather(*[user(number) for number in range(users)])
        return replies

    async def open(self, arrivals: Iterable[float]) -> list[Reply]:
        """Requests at given times, in seconds from now, whatever becomes of those before."""
        began = time.perf_counter()
        asked: list[asyncio.Task[Reply]] = []
        for arrival in arrivals:
            wait_s = began + arrival - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            asked.append(asyncio.create_task(self.ask(began + arrival)))
        return await asyncio.gather(*asked)
