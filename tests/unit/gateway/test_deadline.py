"""`x-request-timeout`: 504 in time on every route to a model, with nothing left behind."""

import asyncio
from typing import Any

import pytest

from carpool.gateway.config import GatewayConfig
from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import CHAT_PATH, Service, chat, events
from tests.unit.worker.echo import until

HEADER = "x-request-timeout"
ROUTES: list[tuple[str, dict[str, Any]]] = [
    (CHAT_PATH, chat()),
    ("/v1/completions", {"model": "parrot", "prompt": "hello"}),
    ("/v1/embeddings", {"model": "vectors", "input": "hello"}),
    ("/rerank", {"model": "judge", "query": "a", "documents": ["b"]}),
    ("/rerank", {"model": "judge", "query": "a", "texts": ["b"]}),
]


async def post(service: Service, path: str, body: dict[str, Any], seconds: str) -> Any:
    async with service.http(**{HEADER: seconds}) as http:
        return await http.post(path, json=body)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_a_request_ends_in_time_and_frees_everything(
    path: str, body: dict[str, Any], cached: bool
) -> None:
    service = Service(GatewayConfig(max_concurrent_requests=1), LocalClient(reranker=True), cached=cached)
    service.client.going.clear()
    reply = await post(service, path, body, "0.05")
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"
    assert "within 0.05 s" in reply.json()["error"]["message"]
    assert service.client.cancelled
    assert not service.client.running
    if cached:
        assert service.cache is not None
        assert service.cache.stats().in_flight == 0
    service.client.going.set()
    assert (await post(service, path, body, "60")).status_code == 200


@pytest.mark.parametrize("path_and_body", ROUTES)
async def test_before_it_is_accepted_as_well(path_and_body: tuple[str, dict[str, Any]]) -> None:
    service = Service(client=LocalClient(reranker=True), cached=True)
    service.client.admitting.clear()
    service.client.going.clear()
    assert (await post(service, *path_and_body, "0.05")).status_code == 504
    assert service.client.cancelled
    assert not service.client.running


async def test_a_stream_that_has_begun_ends_with_the_error() -> None:
    service = Service()
    service.client.going.clear()
    reply = await post(service, CHAT_PATH, chat(stream=True), "0.05")
    assert reply.status_code == 200
    assert events(reply.text)[-1]["error"]["code"] == "deadline_exceeded"
    assert not service.client.running


async def test_the_setting_bounds_it_and_the_worker_knows_it() -> None:
    service = Service(GatewayConfig(request_timeout_s=0.05), LocalClient(reranker=True))
    service.client.going.clear()
    assert (await post(service, CHAT_PATH, chat(), "1000")).status_code == 504
    service = Service(GatewayConfig(request_timeout_s=50), LocalClient(reranker=True))
    for seconds, longest in (("20.5", 20.5), ("1000", 50)):
        for path, body in ROUTES:
            assert (await post(service, path, body, seconds)).status_code == 200
        client = service.client
        calls: list[Any] = [*client.generates, *client.embeds, *client.scored]
        assert len(calls) == len(ROUTES)
        assert all(0 < call.timeout_s <= longest for call in calls)
        client.generates, client.embeds, client.scored = [], [], []


@pytest.mark.parametrize("stream", [False, True])
async def test_those_who_share_its_answer_get_it_all_the_same(stream: bool) -> None:
    service = Service(cached=True)
    service.client.going.clear()
    lookups = service.registry.counter("carpool_cache_lookups_total", "")
    first = asyncio.create_task(post(service, CHAT_PATH, chat(), "0.3"))
    await until(lambda: lookups.total() == 1)
    second = asyncio.create_task(post(service, CHAT_PATH, chat(stream=stream), "60"))
    await until(lambda: lookups.total() == 2)
    assert (await first).status_code == 504
    service.client.going.set()
    reply = await second
    assert (reply.status_code, reply.headers["x-carpool-cache"]) == (200, "joined")
    if stream:
        assert events(reply.text)[-1] == "[DONE]"
    else:
        assert reply.json()["choices"][0]["message"]["content"] == "hello"
    (generate,) = service.client.generates
    assert generate.timeout_s == GatewayConfig().request_timeout_s


@pytest.mark.parametrize("seconds", ["", "0", "0.0", "-1", "5s", "1e3", "inf", "nan", "1_0", "9" * 20])
async def test_what_is_no_number_of_seconds_is_refused(seconds: str) -> None:
    service = Service(client=LocalClient(reranker=True))
    for path, body in ROUTES:
        reply = await post(service, path, body, seconds)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == HEADER
    assert not service.client.generates
