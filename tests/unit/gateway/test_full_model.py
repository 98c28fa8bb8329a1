"""A model without a place: refused before any work, while answers that cost nothing are served."""

import asyncio
from typing import Any

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.gateway.app import create_app
from carpool.gateway.config import GatewayConfig
from tests.unit.gateway.serving import CHAT_PATH, Service, chat
from tests.unit.worker.echo import until


async def post(service: Service, body: dict[str, Any]) -> Any:
    async with service.http() as http:
        return await http.post(CHAT_PATH, json=body)


async def test_stored_and_shared_answers_are_served_and_all_else_is_refused() -> None:
    service = Service(cached=True)
    embedded: list[str] = []

    async def embed(texts: list[str]) -> Any:
        embedded.extend(texts)
        raise RuntimeError

    service.cache = AnswerCache(
        CacheConfig(store="memory"), embed=embed, store=MemoryStore(), registry=service.registry
    )
    service.app = create_app(GatewayConfig(), service.client, service.cache, service.registry)
    assert (await post(service, chat("known"))).status_code == 200
    service.client.going.clear()
    first = asyncio.create_task(post(service, chat("under way")))
    await until(lambda: len(service.client.generates) == 2)
    await service.cache.flush()
    seen = len(embedded)

    give_back = service.client._places.take("parrot", 512)
    assert (await post(service, chat("known"))).headers["x-carpool-cache"] == "exact"
    second = asyncio.create_task(post(service, chat("under way")))
    for body in (chat("news"), chat("news", stream=True), chat("known", carpool={"no_cache": True})):
        reply = await post(service, body)
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "overloaded"
        assert int(reply.headers["retry-after"]) >= 1
    assert len(service.client.generates) == 2
    assert len(embedded) == seen, "nothing is looked up by meaning"
    assert service.cache.stats().in_flight == 1
    service.client.going.set()
    replies = await asyncio.gather(first, second)
    assert [reply.headers["x-carpool-cache"] for reply in replies] == ["miss", "joined"]
    give_back()
    assert (await post(service, chat("news"))).status_code == 200


async def test_where_nothing_is_kept_a_full_model_refuses_before_the_prompt_is_looked_at() -> None:
    service = Service()
    give_back = service.client._places.take("parrot", 512)
    for body in (chat("news"), chat("news", stream=True)):
        reply = await post(service, body)
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "overloaded"
    assert (await post(service, chat("news", top_logprobs=1))).status_code == 400
    give_back()
    assert (await post(service, chat("news"))).status_code == 200
