"""A model without a place: refused before any work, while answers that cost nothing are served."""

import asyncio
import contextlib
from typing import Any

import pytest

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.errors import CarpoolError, InvalidRequest
from carpool.gateway.app import create_app
from carpool.gateway.config import GatewayConfig
from tests.unit.cache.bag_of_words import BagOfWords
from tests.unit.gateway.local_client import open_gate
from tests.unit.gateway.serving import CHAT_PATH, Service, chat
from tests.unit.worker.echo import until

STORED = "How can I learn to play the guitar at home?"
SAME = "how can I learn to play the guitar at home"


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

    taken = service.client.reserve("parrot", 511)
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
    taken.close()
    assert (await post(service, chat("news"))).status_code == 200


async def test_where_nothing_is_kept_a_full_model_refuses_before_the_prompt_is_looked_at() -> None:
    service = Service()
    taken = service.client.reserve("parrot", 512)
    for body in (chat("news"), chat("news", stream=True)):
        reply = await post(service, body)
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "overloaded"
    assert (await post(service, chat("news", top_logprobs=1))).status_code == 400
    taken.close()
    assert (await post(service, chat("news"))).status_code == 200


async def test_of_requests_that_come_together_only_those_with_a_place_are_worked_on() -> None:
    service = Service()
    asked: list[str] = []
    searching = open_gate()

    async def embed(texts: list[str]) -> Any:
        asked.extend(texts)
        await searching.wait()
        return await BagOfWords()(texts)

    config = CacheConfig(store="memory", policy="threshold", lookup_budget_ms=60_000)
    cache = AnswerCache(config, embed=embed, store=MemoryStore(), registry=service.registry)
    service = Service(client=service.client, cache=cache)
    service.client.set_limit("parrot", 1)
    async with cache:
        await post(service, chat(STORED))
        await cache.flush()
        searching.clear()
        known = len(asked)
        first = asyncio.create_task(post(service, chat(SAME)))
        await until(lambda: len(asked) > known)
        for question in ("What do bees eat?", "Why is the sky blue?"):
            reply = await post(service, chat(question))
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
        assert len(asked) == known + 1, "no question is looked up that could not be answered"
        searching.set()
        assert (await first).headers["x-carpool-cache"] == "semantic"
        assert not service.client._places.taken("parrot"), "an answer that was found needs no place"
        assert (await post(service, chat("What do bees eat?"))).status_code == 200
    assert not service.client._places.taken("parrot")


@pytest.mark.parametrize("cached", [False, True])
async def test_prompts_find_places_together_or_not_at_all(cached: bool) -> None:
    service = Service(cached=cached)
    service.client.set_limit("parrot", 7)
    body = {"model": "parrot", "prompt": ["a", "b", "c"], "n": 2}
    path = "/v1/completions"
    async with service.http() as http:
        with contextlib.closing(service.client.reserve("parrot", 2)):
            reply = await http.post(path, json=body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
            assert not service.client.generates, "nothing was begun that would have been thrown away"
        with contextlib.closing(service.client.reserve("parrot", 1)):
            assert (await http.post(path, json=body)).status_code == 200
        service.client.failure, service.client.fails_after = CarpoolError("broken"), 0
        assert (await http.post(path, json=body)).status_code == 500
        service.client.refusal = InvalidRequest("refused")
        assert (await http.post(path, json=body)).status_code == 400
    assert not service.client._places.taken("parrot")


async def test_a_model_for_other_requests_is_refused_before_a_place_is_looked_for() -> None:
    service = Service(cached=True)
    with contextlib.closing(service.client.reserve("vectors", 512)):
        reply = await post(service, chat(model="vectors"))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
