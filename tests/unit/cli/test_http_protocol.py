"""Heads that leave with their bodies, over a real connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvicorn
from starlette.types import Receive, Scope, Send

from carpool.cli.http_protocol import HttpProtocol, _HeadHolder


class Wire(asyncio.Transport):
    """Remembers what is written at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True


def test_a_head_leaves_with_the_first_part_of_its_body() -> None:
    wire = Wire()
    holder = _HeadHolder(wire)
    holder.write(b"HTTP/1.1 200 OK\r\n\r\n")
    holder.write(b"5\r\nhello\r\n")
    holder.write(b"0\r\n\r\n")
    assert wire.written == [b"HTTP/1.1 200 OK\r\n\r\n5\r\nhello\r\n", b"0\r\n\r\n"]


def test_an_empty_part_lets_the_head_go() -> None:
    wire = Wire()
    holder = _HeadHolder(wire)
    holder.write(b"HTTP/1.1 200 OK\r\n\r\n")
    holder.write(b"")
    assert wire.written == [b"HTTP/1.1 200 OK\r\n\r\n"]


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it_at_once() -> None:
    wire = Wire()
    _HeadHolder(wire).write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert wire.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]


def test_closing_sends_what_is_held() -> None:
    wire = Wire()
    holder = _HeadHolder(wire)
    holder.write(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    holder.close()
    assert wire.written == [b"HTTP/1.1 500 Internal Server Error\r\n\r\n"]
    assert wire.closed


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """To a server with this protocol."""
    config = uvicorn.Config(app, port=0, http=HttpProtocol, log_config=None, loop="none", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await serving


async def test_a_reply_without_a_body_does_not_wait_for_one() -> None:
    async with asyncio.timeout(10), connection() as (reader, writer):
        for method in ("HEAD", "GET", "HEAD"):  # on one connection
            writer.write(f"{method} / HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            if method == "GET":
                assert await reader.readexactly(5) == b"hello"
