"""Answers from the cache: headers, replay, shared flights, and what the request may ask for."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from carpool.cache.config import CacheConfig
from carpool.cache.in_flight import MAX_FAILURES
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.errors import WorkerDied
from carpool.telemetry import Registry
from carpool.worker.generation import Generation
from carpool.worker.places import Reservation
from carpool.worker.protocol import Generate
from tests.unit.cache.bag_of_words import BagOfWords
from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import CHAT_PATH, RawCall, Service, chat, events
from tests.unit.worker.echo import until

PREFIX = "x-carpool-cache"


async def ask(service: Service, body: dict[str, Any], **headers: str) -> tuple[str, Any]:
    """The outcome and the reply."""
    async with service.http() as http:
        reply = await http.post(CHAT_PATH, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply.headers[PREFIX], reply


def text_of(reply: Any) -> str:
    if reply.headers["content-type"] == "application/json":
        return str(reply.json()["choices"][0]["message"]["content"])
    chunks = [chunk for chunk in events(reply.text)[:-1] if chunk["choices"]]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def joined(service: Service) -> float:
    """How many requests have joined another one's flight."""
    lookups = service.registry.counter("carpool_cache_lookups_total", "")
    return sum(series.value for labels, series in lookups.series.items() if ("outcome", "joined") in labels)


async def test_an_exact_hit_whole_and_streamed() -> None:
    service = Service(cached=True)
    outcome, first = await ask(service, chat("hello there"))
    assert outcome == "miss"
    assert not {f"{PREFIX}-match", f"{PREFIX}-age", f"{PREFIX}-similarity"} & set(first.headers)
    outcome, again = await ask(service, chat("hello there"))
    assert outcome == "exact"
    assert again.headers[f"{PREFIX}-match"] == first.headers["x-request-id"] != again.headers["x-request-id"]
    assert again.headers[f"{PREFIX}-age"] == "0"
    assert again.json()["choices"] == first.json()["choices"]
    body = chat("hello there", stream=True, stream_options={"include_usage": True})
    outcome, streamed = await ask(service, body)
    assert outcome == "exact"
    assert text_of(streamed) == "hello there"
    parts = events(streamed.text)
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in parts[:-2]] == [None] * (len(parts) - 3) + ["stop"]
    assert parts[-2]["usage"] == {
        "prompt_tokens": 11,
        "completion_tokens": 11,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert len(service.client.generates) == 1


STORED = "How can I learn to play the guitar at home?"
SAME = "how can I learn to play the guitar at home"


def semantic_service() -> Service:
    config = CacheConfig(store="memory", policy="threshold", lookup_budget_ms=10_000)
    return Service(
        cache=AnswerCache(config, embed=BagOfWords(), store=MemoryStore(), registry=Registry()),
    )


async def test_a_hit_by_meaning_whole_and_streamed() -> None:
    service = semantic_service()
    assert service.cache is not None
    outcome, first = await ask(service, chat(STORED))
    await service.cache.flush()
    usage = {
        "prompt_tokens": len(SAME),
        "completion_tokens": len(STORED),
        "total_tokens": len(SAME) + len(STORED),
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    outcome, whole = await ask(service, chat(SAME))
    assert (outcome, text_of(whole), whole.json()["usage"]) == ("semantic", STORED, usage)
    outcome, streamed = await ask(service, chat(SAME, stream=True, stream_options={"include_usage": True}))
    assert (outcome, text_of(streamed)) == ("semantic", STORED)
    for reply in (whole, streamed):
        assert reply.headers[f"{PREFIX}-match"] == first.headers["x-request-id"]
        assert reply.headers[f"{PREFIX}-similarity"] == "1.0000"
    *parts, told, done = events(streamed.text)
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [part["choices"][0]["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + ["stop"]
    assert (told["choices"], told["usage"], done) == ([], usage, "[DONE]")
    assert len(service.client.generates) == 1
    tokens = service.registry.counter("carpool_tokens_total", "").series
    by_meaning = [series.value for labels, series in tokens.items() if ("cache", "semantic") in labels]
    assert sorted(by_meaning) == [2 * len(SAME), 2 * len(STORED)]


async def test_a_hit_by_meaning_while_the_model_is_down_tells_the_stored_prompts_length() -> None:
    service = semantic_service()
    assert service.cache is not None
    await ask(service, chat(STORED))
    await service.cache.flush()
    service.client.set_state("parrot", phase="restarting", percent=0.0)
    outcome, reply = await ask(service, chat(SAME))
    assert (outcome, reply.json()["usage"]["prompt_tokens"]) == ("semantic", len(STORED))


async def test_a_long_stored_answer_is_replayed_whole() -> None:
    service = Service(cached=True)
    long = "many words " * 40
    await ask(service, chat(long))
    outcome, streamed = await ask(service, chat(long, stream=True))
    assert (outcome, text_of(streamed)) == ("exact", long)
    assert 3 < len(events(streamed.text)) < len(long) / 8


@pytest.mark.parametrize(
    ("fields", "headers", "outcome"),
    [
        ({}, {}, "exact"),
        ({"presence_penalty": 0, "n": 1, "stop": [], "logit_bias": {}}, {}, "exact"),
        ({"top_p": 1}, {}, "miss"),
        ({"max_tokens": 60}, {}, "exact"),
        ({"max_tokens": 3}, {}, "miss"),
        ({"top_p": 0.5}, {}, "miss"),
        ({"stop": ["zzz"]}, {}, "miss"),
        ({"temperature": 0}, {}, "miss"),
        ({"temperature": 1.5}, {}, "bypass"),
        ({"n": 2}, {}, "bypass"),
        ({"logprobs": True}, {}, "bypass"),
        ({"carpool": {"cache": "off"}}, {}, "bypass"),
        ({"carpool": {"cache": "exact"}}, {}, "exact"),
        ({"carpool": {"no_cache": True}}, {}, "miss"),
        ({}, {"cache-control": "max-age=0, No-Cache"}, "miss"),
        ({}, {"cache-control": "no-store"}, "exact"),
    ],
)
async def test_what_a_request_may_be_answered_with(
    fields: dict[str, Any], headers: dict[str, str], outcome: str
) -> None:
    service = Service(cached=True)
    await ask(service, chat("hello"))
    assert (await ask(service, chat("hello", **fields), **headers))[0] == outcome


@pytest.mark.parametrize(
    ("fields", "headers"),
    [({"carpool": {"no_store": True}}, {}), ({}, {"cache-control": "no-store"}), ({"max_tokens": 2}, {})],
)
async def test_what_is_not_kept(fields: dict[str, Any], headers: dict[str, str]) -> None:
    service = Service(cached=True)
    await ask(service, chat("hello", **fields), **headers)
    assert (await ask(service, chat("hello", **fields)))[0] == "miss"


async def test_without_a_cache_the_header_says_bypass() -> None:
    assert (await ask(Service(), chat()))[0] == "bypass"


async def test_hits_are_served_while_the_model_is_down() -> None:
    service = Service(cached=True)
    await ask(service, chat("hello"))
    service.client.set_state("parrot", phase="restarting", percent=0.0)
    assert (await ask(service, chat("hello")))[0] == "exact"
    async with service.http() as http:
        assert (await http.post(CHAT_PATH, json=chat("else"))).status_code == 503


async def test_answers_are_of_one_revision_of_a_model() -> None:
    service = semantic_service()
    assert service.cache is not None
    await ask(service, chat(STORED))
    await service.cache.flush()
    service.client.set_state("parrot", revision="files:2")
    assert [(await ask(service, chat(text)))[0] for text in (SAME, STORED)] == ["miss", "miss"]
    service.client.set_state("parrot", revision=None)  # it is being fetched
    assert (await ask(service, chat(STORED)))[0] == "bypass"
    service.client.set_state("parrot", revision="pypi:parrot==1")
    assert (await ask(service, chat(STORED)))[0] == "exact"


async def test_identical_requests_share_one_run() -> None:
    service = Service(cached=True)
    service.client.going.clear()
    tasks = [asyncio.create_task(ask(service, chat("hello", stream=i % 2 == 0))) for i in range(50)]
    await until(lambda: joined(service) == 49)
    service.client.going.set()
    replies = await asyncio.gather(*tasks)
    assert sorted(outcome for outcome, _ in replies) == ["joined"] * 49 + ["miss"]
    assert {text_of(reply) for _, reply in replies} == {"hello"}
    leader = next(reply for outcome, reply in replies if outcome == "miss")
    followers = [reply for outcome, reply in replies if outcome == "joined"]
    assert {reply.headers[f"{PREFIX}-match"] for reply in followers} == {leader.headers["x-request-id"]}
    assert len(service.client.generates) == 1


BODY = b'{"model":"parrot","messages":[{"role":"user","content":"hello"}],"stream":true}'


async def test_a_leader_that_leaves_goes_on_for_its_followers() -> None:
    service = Service(cached=True)
    service.client.going.clear()
    leader = RawCall(service.app, CHAT_PATH, BODY)
    await leader.received(b"assistant")
    followers = [asyncio.create_task(ask(service, chat("hello", stream=stream))) for stream in (True, False)]
    await until(lambda: joined(service) == 2)
    await leader.leave()
    assert service.client.running
    service.client.going.set()
    for outcome, reply in await asyncio.gather(*followers):
        assert (outcome, text_of(reply)) == ("joined", "hello")
    assert len(service.client.generates) == 1
    assert not service.client.cancelled


async def test_a_leader_that_leaves_alone_frees_its_place() -> None:
    service = Service(cached=True)
    service.client.going.clear()
    leader = RawCall(service.app, CHAT_PATH, BODY)
    await leader.received(b"assistant")
    await leader.leave()
    assert not service.client.running
    service.client.going.set()
    assert (await ask(service, chat("hello")))[0] == "miss"


async def test_a_leader_that_goes_on_stops_when_the_last_follower_leaves() -> None:
    service = Service(cached=True)
    service.client.going.clear()
    leader = RawCall(service.app, CHAT_PATH, BODY)
    await leader.received(b"assistant")
    follower = RawCall(service.app, CHAT_PATH, BODY)
    await until(lambda: joined(service) == 1)
    await leader.leave()
    await follower.leave()
    service.client.going.set()
    await until(lambda: not service.client.running)
    assert service.client.cancelled


class FailingOnce(LocalClient):
    """Its first generation fails half-way; the others say `later`, if that is set."""

    later: str | None = None

    async def generate(
        self, request: Generate, *, stop: Sequence[str] = (), places: Reservation | None = None
    ) -> Generation:
        self.failure = None if self.generates else WorkerDied("The worker ended.")
        if self.generates and self.later is not None:
            messages = [{"role": "user", "content": self.later}]
            request = msgspec.structs.replace(request, messages=messages)
        return await super().generate(request, stop=stop, places=places)


@pytest.mark.parametrize(
    ("later", "text"),
    [(None, "hello"), ("help yourself", "help yourself"), ("something else", None), ("h", None)],
)
async def test_a_follower_goes_on_for_a_leader_that_fails(later: str | None, text: str | None) -> None:
    client = FailingOnce()
    client.later = later
    service = Service(cached=True, client=client)
    client.going.clear()
    body = BODY.replace(b'"stream"', b'"stream_options":{"include_usage":true},"stream"')
    leader = RawCall(service.app, CHAT_PATH, body)
    await leader.received(b"assistant")
    streamed = [RawCall(service.app, CHAT_PATH, body) for _ in range(3)]
    whole = asyncio.create_task(ask(service, chat("hello")))
    await until(lambda: joined(service) == 4)
    client.going.set()
    await leader.received(b"worker_died")
    assert text_of((await whole)[1]) == (later or "hello")
    for follower in streamed:
        await follower.received(b"error" if text is None else b"[DONE]")
        assert (b"[DONE]" in follower.body) is (text is not None)
        if text is None:
            assert b"goes on otherwise" in follower.body
            continue
        *parts, told, _ = events(follower.body.decode())
        assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == text
        assert told["usage"]["completion_tokens"] == len(text)
    assert len(client.generates) == 2
    await until(lambda: not client.running)


async def test_a_request_that_fails_every_time_is_not_tried_for_ever() -> None:
    service = Service(cached=True)
    service.client.going.clear()
    service.client.failure = WorkerDied("The worker ended.")
    leader = RawCall(service.app, CHAT_PATH, BODY)
    await leader.received(b"assistant")
    whole = RawCall(service.app, CHAT_PATH, BODY.replace(b"true", b"false")).task
    streamed = RawCall(service.app, CHAT_PATH, BODY)
    await until(lambda: joined(service) == 2)
    service.client.going.set()
    await leader.received(b"worker_died")
    # Every run of the model fails: the third one's error goes to all.
    await streamed.received(b"worker_died")
    assert b"[DONE]" not in streamed.body
    await whole
    assert len(service.client.generates) == MAX_FAILURES
