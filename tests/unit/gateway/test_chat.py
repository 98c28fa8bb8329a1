"""Chat completions: what the worker is asked, and the shape of whole and streamed replies."""

import asyncio
from typing import Any

import pytest

from carpool.errors import ContextLengthExceeded, Draining, ModelFailed, Overloaded, WorkerDied
from carpool.gateway.config import GatewayConfig
from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import CHAT_PATH, RawCall, Service, chat, events
from tests.unit.worker.echo import until


async def ask(service: Service, body: dict[str, Any]) -> Any:
    async with service.http() as http:
        reply = await http.post(CHAT_PATH, json=body)
    assert reply.status_code == 200, reply.text
    return events(reply.text) if body.get("stream") else reply.json()


async def test_a_whole_reply() -> None:
    service = Service()
    reply = await ask(service, chat("hello", model="org/parrot"))
    assert reply["id"].startswith("chatcmpl-req-")
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "parrot"
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert reply["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


async def test_a_stream() -> None:
    body = chat("hi", stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = await ask(Service(), body)
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in [*chunks, usage]}) == 1
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "h"},
        {"content": "i"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert [chunk["usage"] for chunk in chunks] == [None] * 4
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 4


async def test_a_stream_without_usage_does_not_mention_it() -> None:
    chunks = (await ask(Service(), chat("hi", stream=True)))[:-1]
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


async def test_text_is_never_split_inside_a_character() -> None:
    chunks = (await ask(Service(), chat("né 🚗\n", stream=True)))[:-1]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert pieces == ["", "n", "é", " ", "🚗", "\n", ""]


async def test_n_choices() -> None:
    reply = await ask(Service(), chat("abc", n=3))
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in reply["choices"]} == {"abc"}
    assert reply["usage"]["completion_tokens"] == 9
    chunks = (await ask(Service(), chat("abc", n=2, stream=True)))[:-1]
    for index in range(2):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == "abc"
        assert own[-1]["finish_reason"] == "stop"


async def test_logprobs() -> None:
    reply = await ask(Service(), chat("é", logprobs=True, top_logprobs=1))
    first, _ = reply["choices"][0]["logprobs"]["content"]
    assert first == {
        "token": "\ufffd",
        "logprob": -0.5,
        "bytes": [0xC3],
        "top_logprobs": [{"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3]}],
    }
    chunks = (await ask(Service(), chat("ab", logprobs=True, stream=True)))[:-1]
    tokens = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [each and each["content"][0]["token"] for each in tokens] == [None, "a", "b", None]
    assert tokens[1]["content"][0]["top_logprobs"] == []


async def test_length_and_stop_strings() -> None:
    reply = await ask(Service(), chat("abcdef", max_tokens=5, max_completion_tokens=2))
    assert reply["choices"][0]["message"]["content"] == "ab"
    assert reply["choices"][0]["finish_reason"] == "length"
    for stop in ("de", ["x", "de"]):
        reply = await ask(Service(), chat("abcdef", stop=stop))
        assert reply["choices"][0]["message"]["content"] == "abc"
        assert reply["choices"][0]["finish_reason"] == "stop"


async def test_the_fields_reach_the_worker() -> None:
    service = Service(GatewayConfig(request_timeout_s=60))
    fields: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "presence_penalty": 0.3,
        "logit_bias": {"5": -100},
        "seed": -1,
        "min_tokens": 2,
        "ignore_eos": True,
        "stop_token_ids": [9],
    }
    await ask(service, chat("hello", **fields))
    await ask(service, chat("hello", top_k=-1))
    given, plain = service.client.generates
    for name, value in {**fields, "logit_bias": {5: -100.0}, "seed": 2**63 - 1}.items():
        assert getattr(given, name) == value
    assert given.timeout_s is not None
    assert 0 < given.timeout_s <= 60
    assert given.tenant == "local"
    assert (plain.temperature, plain.top_k, plain.seed, plain.top_logprobs) == (None, 0, None, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status", "retry_after", "should_retry"),
    [
        (ContextLengthExceeded("too long", param="messages"), 400, None, "false"),
        (Overloaded("full", retry_after_s=2.2), 503, "3", "true"),
        (WorkerDied("restarting", retry_after_s=0.1), 503, "1", "true"),
        (Draining("closing"), 503, "1", "true"),
        (ModelFailed("no such file"), 503, "60", "false"),
    ],
)
async def test_a_refusal_is_a_status_and_not_a_stream(
    stream: bool, refusal: Any, status: int, retry_after: str | None, should_retry: str
) -> None:
    service = Service()
    service.client.refusal = refusal
    async with service.http() as http:
        reply = await http.post(CHAT_PATH, json=chat(stream=stream))
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["error"]["code"] == refusal.code
    assert reply.headers.get("retry-after") == retry_after
    assert reply.headers["x-should-retry"] == should_retry


async def test_a_loading_model_says_when_to_come_back() -> None:
    async with Service(client=LocalClient(ready=False)).http() as http:
        reply = await http.post(CHAT_PATH, json=chat())
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_loading")
    assert reply.headers["retry-after"] == "3"


async def test_the_status_waits_for_acceptance() -> None:
    service = Service()
    service.client.admitting.clear()
    call = RawCall(
        service.app, CHAT_PATH, b'{"model":"parrot","messages":[{"role":"user","content":"x"}],"stream":true}'
    )
    await until(lambda: bool(service.client.running))
    assert call.status == 0
    service.client.going.clear()
    service.client.admitting.set()
    await call.received(b"assistant")
    assert call.status == 200  # before the first token
    service.client.going.set()
    await call.received(b"[DONE]")
    assert call.complete


async def test_a_failure_in_mid_stream_is_the_last_event() -> None:
    service = Service()
    service.client.failure = WorkerDied("The worker ended.")
    *chunks, last = await ask(service, chat("hello", stream=True))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "h", "e", "l"]
    assert last == {
        "error": {
            "message": "The worker ended.",
            "type": "service_unavailable_error",
            "param": None,
            "code": "worker_died",
        }
    }
    async with service.http() as http:
        reply = await http.post(CHAT_PATH, json=chat("hello"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "worker_died")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_ends_at_its_deadline(stream: bool) -> None:
    service = Service(GatewayConfig(request_timeout_s=0.2))
    service.client.going.clear()
    async with service.http() as http:
        reply = await http.post(CHAT_PATH, json=chat(stream=stream))
    error = events(reply.text)[-1]["error"] if stream else reply.json()["error"]
    assert error["code"] == "deadline_exceeded"
    assert reply.status_code == (200 if stream else 504)
    assert service.client.cancelled
    assert not service.client.running


async def test_places_are_bounded_and_given_back() -> None:
    service = Service(GatewayConfig(max_concurrent_requests=2))
    service.client.going.clear()
    async with service.http() as http:
        inside = [asyncio.create_task(http.post(CHAT_PATH, json=chat())) for _ in range(2)]
        await until(lambda: len(service.client.running) == 2)
        refused = await http.post(CHAT_PATH, content=b"not even read")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await http.get("/health/live")).status_code == 200
        service.client.going.set()
        assert [reply.status_code for reply in await asyncio.gather(*inside)] == [200, 200]
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 200
