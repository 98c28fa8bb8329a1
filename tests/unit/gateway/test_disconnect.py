"""A client that leaves, at any moment, stops the work for it at once."""

import asyncio
import json

import httpx2
import pytest

from tests.unit.gateway.serving import CHAT_PATH, RawCall, Service, chat
from tests.unit.worker.echo import until


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("moment", ["before acceptance", "before the first token", "between tokens"])
async def test_a_chat_is_cancelled(stream: bool, moment: str) -> None:
    service = Service()
    client = service.client
    if moment == "before acceptance":
        client.admitting.clear()
    else:
        client.going.clear()
    call = RawCall(service.app, CHAT_PATH, json.dumps(chat("hello", stream=stream)).encode())
    await until(lambda: bool(client.running))
    if moment == "between tokens":
        client.going.set()
        await asyncio.sleep(0)
        client.going.clear()
    await call.leave()
    assert not client.running
    assert client.cancelled
    assert not call.complete
    async with service.http() as http:
        page = (await http.get("/metrics")).text
    assert 'carpool_requests_total{method="POST",route="/v1/chat/completions",status="499"} 1' in page


async def test_an_embedding_is_cancelled() -> None:
    service = Service()
    service.client.going.clear()
    call = RawCall(service.app, "/v1/embeddings", b'{"model":"vectors","input":"x"}')
    await until(lambda: bool(service.client.running))
    await call.leave()
    assert service.client.cancelled
    assert call.status == 0


async def test_several_prompts_are_all_cancelled() -> None:
    service = Service()
    service.client.going.clear()
    call = RawCall(
        service.app, "/v1/completions", b'{"model":"parrot","prompt":["a","b"],"n":2,"stream":true}'
    )
    await until(lambda: len(service.client.running) == 2)
    await call.leave()
    assert len(service.client.cancelled) == 2


async def test_leaving_while_the_body_is_sent() -> None:
    service = Service()
    call = RawCall(service.app, CHAT_PATH, b"")
    call._messages[0]["more_body"] = True
    await call.leave()
    assert call.status == 0
    assert not service.client.generates


async def test_a_connection_that_breaks_on_a_real_server() -> None:
    service = Service()
    service.client.going.clear()
    async with service.listening() as url, httpx2.AsyncClient(base_url=url) as http:
        async with http.stream("POST", CHAT_PATH, json=chat(stream=True)) as reply:
            assert reply.status_code == 200
        await until(lambda: bool(service.client.cancelled))
        assert not service.client.running


async def test_a_server_that_ends_the_call_is_not_mistaken_for_a_client_that_left() -> None:
    service = Service()
    service.client.going.clear()
    call = RawCall(service.app, CHAT_PATH, json.dumps(chat()).encode())
    await until(lambda: bool(service.client.running))
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert not service.client.running
