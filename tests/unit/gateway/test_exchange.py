"""Parts of a body that are sent from callbacks, to clients fast and slow."""

import asyncio
from typing import Any

import pytest

from carpool.gateway.call import Call
from carpool.gateway.exchange import ClientDisconnected, Exchange


class Client:
    """Takes what it is sent while `reading` is set."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.bodies: list[bytes] = []
        scope: dict[str, Any] = {"headers": []}
        Call.open(scope)
        self.exchange = Exchange(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        raise NotImplementedError

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


async def test_a_client_that_leaves_is_seen_however_the_server_waits_for_it() -> None:
    gone = asyncio.Event()

    class Leaver(Client):
        async def _receive(self) -> Any:
            await asyncio.sleep(0)  # waits for nothing but its turn
            await gone.wait()
            return {"type": "http.disconnect"}

    asyncio.get_running_loop().call_later(0, gone.set)
    with pytest.raises(ClientDisconnected):
        async with Leaver().exchange.attended():
            await asyncio.Event().wait()
