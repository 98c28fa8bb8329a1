"""Parts of a body that are sent from callbacks, to clients fast and slow, and clients who leave."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from carpool.errors import DeadlineExceeded
from carpool.gateway import text_route
from carpool.gateway.call import Call
from carpool.gateway.exchange import Attendance, ClientDisconnected, Exchange


class Client:
    """Takes what it is sent while `reading` is set."""

    def __init__(self, longest_s: float | None = None) -> None:
        self.reading = asyncio.Event()
        self.bodies: list[bytes] = []
        scope: dict[str, Any] = {"headers": []}
        Call.open(scope)
        self.exchange = Exchange(scope, self.receive, self._send, longest_s)

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        self.bodies.append(message["body"])


async def test_what_is_pushed_is_sent_at_once() -> None:
    client = Client()
    client.reading.set()
    client.exchange.push(b"one")
    client.exchange.push(b"two")
    assert client.bodies == [b"one", b"two"]


async def test_what_a_slow_client_is_pushed_comes_in_order_and_before_the_end() -> None:
    client = Client()
    for part in (b"one", b"two", b"three"):
        client.exchange.push(part)
    finishing = asyncio.create_task(client.exchange.finish(b"end"))
    await asyncio.sleep(0)
    assert not client.bodies
    client.reading.set()
    await finishing
    assert client.bodies == [b"one", b"twothree", b"end"]


async def test_a_client_that_has_caught_up_is_fast_again() -> None:
    client = Client()
    client.exchange.push(b"one")
    await asyncio.sleep(0)
    client.reading.set()
    for _ in range(3):  # it is awake, has sent, has ended
        await asyncio.sleep(0)
    client.exchange.push(b"two")
    assert client.bodies == [b"one", b"two"]


async def test_a_deadline_that_passes_at_the_end_of_a_stream_takes_nothing_from_it() -> None:
    client = Client(longest_s=0.01)

    async def stream() -> None:
        async with client.exchange.attended():
            client.exchange.push(b"one")
            client.exchange.push(b"two")
            await client.exchange.finish(b"end")

    with pytest.raises(DeadlineExceeded):
        await stream()
    client.reading.set()
    await client.exchange.finish(b"error")
    assert client.bodies == [b"one", b"two", b"error"]


class SlowlyLeaving(Client):
    """Leaves after some turns of the event loop, without waiting for anything else."""

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}


async def test_a_server_may_wait_for_no_more_than_a_turn_of_the_event_loop() -> None:
    with pytest.raises(ClientDisconnected):
        async with SlowlyLeaving(longest_s=60).exchange.attended():
            await asyncio.Event().wait()


class Broken(Client):
    """Whose connection breaks."""

    async def receive(self) -> Any:
        broken = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(broken.set_exception, ConnectionResetError())
        try:
            await broken
        except ConnectionResetError:
            return {"type": "http.disconnect"}


async def test_a_server_learns_how_its_waiting_ended() -> None:
    with pytest.raises(ClientDisconnected):
        await Broken().exchange.body(10)


async def test_a_request_is_freed_at_its_end_without_a_search_for_garbage() -> None:
    async def attended() -> "weakref.ref[Attendance]":
        attendance = Client(longest_s=60).exchange.attended()
        async with attendance:
            await asyncio.sleep(0)  # it watches
        return weakref.ref(attendance)

    gc.disable()
    try:
        assert (await attended())() is None
    finally:
        gc.enable()


async def test_a_failed_stream_does_not_wait_for_ever_for_a_client_that_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_route, "_LAST_WORDS_S", 0.01, raising=False)
    client = Client()
    client.exchange.push(b"one")
    async with asyncio.timeout(60):
        with pytest.raises(DeadlineExceeded):
            await text_route._break_off(client.exchange, DeadlineExceeded("too late"))
    client.reading.set()
    await asyncio.sleep(0)
    assert not client.bodies
