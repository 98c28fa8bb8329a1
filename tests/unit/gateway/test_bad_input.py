"""Whatever is wrong with a request: the envelope, the right status, the field at fault; then life goes on."""

import json
from typing import Any

import pytest

from carpool.gateway.config import GatewayConfig
from tests.unit.gateway.serving import CHAT_PATH, Service, chat, events

EMBED_PATH, COMPLETION_PATH = "/v1/embeddings", "/v1/completions"
NESTED = '{"messages":' + "[" * 100_000


def embed(**fields: Any) -> dict[str, Any]:
    return {"model": "vectors", "input": "hello", **fields}


def complete(**fields: Any) -> dict[str, Any]:
    return {"model": "parrot", "prompt": "hello", **fields}


def message(**fields: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": "hello"}, fields])


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        # Not JSON, or not an object.
        (CHAT_PATH, b"", None),
        (CHAT_PATH, b"{not json", None),
        (CHAT_PATH, b"\xff\xfe\x00", None),
        (CHAT_PATH, b'{"model": "\xff"}', None),
        (CHAT_PATH, rb'{"model": "\ud800"}', None),
        (CHAT_PATH, b'{"model": "parrot", "temperature": NaN}', None),
        (CHAT_PATH, b'{"model": "parrot", "temperature": Infinity}', None),
        (CHAT_PATH, b'{"model": "parrot", "temperature": 1e999}', "temperature"),
        (CHAT_PATH, json.dumps(chat()).encode() + b" and more", None),
        (CHAT_PATH, NESTED.encode(), "messages[0]"),
        (CHAT_PATH, ('{"metadata":' + "[" * 100_000).encode(), None),
        (CHAT_PATH, b"[]", None),
        (CHAT_PATH, b"null", None),
        (CHAT_PATH, b'"text"', None),
        # Fields that are missing or unknown.
        (CHAT_PATH, {"model": "parrot"}, "messages"),
        (CHAT_PATH, {"messages": [{"role": "user", "content": "hello"}]}, "model"),
        (CHAT_PATH, chat(frobnicate=1), "frobnicate"),
        (CHAT_PATH, {**chat(), "a`b\n": 1}, "a`b\n"),
        (CHAT_PATH, chat(chat_template="{{ 1 }}"), "chat_template"),
        (CHAT_PATH, chat(stream_options={"usage": True}), "stream_options.usage"),
        (CHAT_PATH, chat(carpool={"cache": "sometimes"}), "carpool.cache"),
        (CHAT_PATH, chat(carpool={"ttl": 5}), "carpool.ttl"),
        # Messages.
        (CHAT_PATH, chat(messages=[]), "messages"),
        (CHAT_PATH, chat(messages="hello"), "messages"),
        (CHAT_PATH, chat(messages=["hello"]), "messages[0]"),
        (CHAT_PATH, message(role="pirate", content="arr"), "messages[1].role"),
        (CHAT_PATH, message(content="hello"), "messages[1].role"),
        (CHAT_PATH, message(role="user"), "messages[1]"),
        (CHAT_PATH, message(role="user", content=5), "messages[1].content"),
        (CHAT_PATH, message(role="user", content="x", mood="good"), "messages[1].mood"),
        (
            CHAT_PATH,
            message(role="user", content=[{"type": "image_url", "image_url": {"url": "http://x"}}]),
            "messages[1].content[0].type",
        ),
        # Types and ranges.
        (CHAT_PATH, chat(model=5), "model"),
        (CHAT_PATH, chat(model=""), "model"),
        (CHAT_PATH, chat(temperature="hot"), "temperature"),
        (CHAT_PATH, chat(temperature=True), "temperature"),
        (CHAT_PATH, chat(temperature=2.1), "temperature"),
        (CHAT_PATH, chat(temperature=-0.1), "temperature"),
        (CHAT_PATH, chat(top_p=0), "top_p"),
        (CHAT_PATH, chat(top_k=-2), "top_k"),
        (CHAT_PATH, chat(min_p=1.5), "min_p"),
        (CHAT_PATH, chat(repetition_penalty=0), "repetition_penalty"),
        (CHAT_PATH, chat(frequency_penalty=3), "frequency_penalty"),
        (CHAT_PATH, chat(presence_penalty=-3), "presence_penalty"),
        (CHAT_PATH, chat(max_tokens=0), "max_tokens"),
        (CHAT_PATH, chat(max_tokens=True), "max_tokens"),
        (CHAT_PATH, chat(max_tokens=1.5), "max_tokens"),
        (CHAT_PATH, chat(max_completion_tokens="5"), "max_completion_tokens"),
        (CHAT_PATH, chat(min_tokens=-1), "min_tokens"),
        (CHAT_PATH, chat(n=0), "n"),
        (CHAT_PATH, chat(n=1000), "n"),
        (CHAT_PATH, chat(seed=2**70), "seed"),
        (CHAT_PATH, chat(stop=5), "stop"),
        (CHAT_PATH, chat(stop=""), "stop"),
        (CHAT_PATH, chat(stop=["x"] * 17), "stop"),
        (CHAT_PATH, chat(stop=["ok", ""]), "stop[1]"),
        (CHAT_PATH, chat(stop_token_ids=["x"]), "stop_token_ids[0]"),
        (CHAT_PATH, chat(stream="yes"), "stream"),
        (CHAT_PATH, chat(ignore_eos=1), "ignore_eos"),
        (CHAT_PATH, chat(logprobs=3), "logprobs"),
        (CHAT_PATH, chat(logprobs=True, top_logprobs=21), "top_logprobs"),
        (CHAT_PATH, chat(top_logprobs=2), "top_logprobs"),
        (CHAT_PATH, chat(logit_bias={"x": 1}), "logit_bias"),
        (CHAT_PATH, chat(logit_bias={"5": 101}), "logit_bias[...]"),
        (CHAT_PATH, chat(logit_bias=[1]), "logit_bias"),
        (CHAT_PATH, chat(model="vectors"), "model"),
        (COMPLETION_PATH, {"model": "parrot"}, "prompt"),
        (COMPLETION_PATH, complete(prompt=""), "prompt"),
        (COMPLETION_PATH, complete(prompt=[]), "prompt"),
        (COMPLETION_PATH, complete(prompt=["a", 1]), "prompt[1]"),
        (COMPLETION_PATH, complete(prompt=["a", "", ""]), "prompt[1]"),
        (COMPLETION_PATH, complete(prompt=[1.5]), "prompt[0]"),
        (COMPLETION_PATH, complete(prompt=["a"] * 129), "prompt"),
        (COMPLETION_PATH, complete(logprobs=True), "logprobs"),
        (EMBED_PATH, {"model": "vectors"}, "input"),
        (EMBED_PATH, embed(input=[]), "input"),
        (EMBED_PATH, embed(input=""), "input"),
        (EMBED_PATH, embed(input=[""]), "input[0]"),
        (EMBED_PATH, embed(input=["a", "", "b", ""]), "input[1]"),
        (EMBED_PATH, embed(input=[[1], [2], []]), "input[2]"),
        (EMBED_PATH, embed(input=["a", "b", 5, [1]]), "input[2]"),
        (EMBED_PATH, embed(input=[5, 6, [1], "a"]), "input[2]"),
        (EMBED_PATH, embed(input=["a", None]), "input[1]"),
        (EMBED_PATH, embed(input=[["a"]]), "input[0][0]"),
        (EMBED_PATH, embed(input=[-1]), "input[0]"),
        (EMBED_PATH, embed(input={"a": 1}), "input"),
        (EMBED_PATH, embed(input=[1, 2, 3]), "input"),
        (EMBED_PATH, embed(input=[[1], [2]]), "input"),
        (EMBED_PATH, embed(input=["a"] * 4097), "input"),
        (EMBED_PATH, embed(encoding_format="hex"), "encoding_format"),
        (EMBED_PATH, embed(dimensions=0), "dimensions"),
        (EMBED_PATH, embed(dimensions=9), "dimensions"),
        (EMBED_PATH, embed(model="parrot"), "model"),
    ],
)
async def test_a_bad_request_is_400_and_names_the_field(path: str, body: Any, param: str | None) -> None:
    service = Service()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with service.http() as http:
        reply = await http.post(path, content=content)
        error = reply.json()["error"]
        assert reply.status_code == 400, error
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param, error
        assert len(error["message"]) < 500
        assert reply.headers["x-request-id"]
        assert reply.headers["x-should-retry"] == "false"
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 200
    assert len(service.client.generates) == 1
    assert not service.client.embeds


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT_PATH, chat(functions=[{"name": "f"}]), "functions"),
        (CHAT_PATH, chat(audio={"voice": "x"}), "audio"),
        (COMPLETION_PATH, complete(echo=True), "echo"),
        (COMPLETION_PATH, complete(suffix="end"), "suffix"),
        (COMPLETION_PATH, complete(best_of=3), "best_of"),
        (COMPLETION_PATH, complete(best_of=True), "best_of"),
    ],
)
async def test_what_is_known_but_not_served_is_said_so(path: str, body: Any, param: str) -> None:
    async with Service().http() as http:
        reply = await http.post(path, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    if body.get("best_of") is not True:
        assert reply.json()["error"]["code"] == "unsupported"


async def test_fields_that_ask_for_nothing_are_accepted() -> None:
    fields: dict[str, Any] = {
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "user": "u1",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "reasoning_effort": "low",
        "modalities": ["text"],
        "logit_bias": None,
        "stop": None,
        "max_tokens": None,
        "n": None,
        "stream": None,
    }
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": "Yes?", "refusal": None, "annotations": [], "tool_calls": None},
        {"role": "user", "content": [{"type": "text", "text": "hello"}], "name": "ann"},
    ]
    service = Service()
    async with service.http() as http:
        reply = await http.post(CHAT_PATH, json=chat(messages=history, **fields))
        assert reply.status_code == 200, reply.text
        reply = await http.post(COMPLETION_PATH, json=complete(echo=False, best_of=1, suffix=None))
        assert reply.status_code == 200, reply.text
    assert service.client.generates[0].messages == [
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}], "name": "ann"},
    ]


@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETION_PATH, EMBED_PATH])
async def test_an_unknown_model_is_404(path: str) -> None:
    body = {CHAT_PATH: chat(), COMPLETION_PATH: complete(), EMBED_PATH: embed()}[path]
    async with Service().http() as http:
        reply = await http.post(path, json={**body, "model": "gpt-9"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert reply.json()["error"]["param"] == "model"


async def test_unknown_routes_and_methods_have_the_envelope() -> None:
    async with Service().http() as http:
        for path in ("/nothing", "/v1/models/", "/v1/chat/completions/"):
            reply = await http.get(path)
            assert reply.status_code == 404, path
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        reply = await http.get(CHAT_PATH)
        assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
        assert reply.json()["error"]["code"] == "method_not_allowed"


async def test_a_large_body_is_refused_while_it_comes() -> None:
    service = Service(GatewayConfig(max_body_bytes=1000))
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 100
            yield b"x" * 100

    async with service.http() as http:
        reply = await http.post(CHAT_PATH, content=endless())
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "payload_too_large")
        assert "max_body_bytes" in reply.json()["error"]["message"]
        assert sent <= 1200
        reply = await http.post(CHAT_PATH, content=b"x" * 1001)
        assert reply.status_code == 413
        assert reply.headers["connection"] == "close"
        reply = await http.post(CHAT_PATH, json=chat())
        assert reply.status_code == 200


async def test_a_body_in_many_parts_is_read() -> None:
    async def parts() -> Any:
        for byte in json.dumps(chat("in parts", stream=True)).encode():
            yield bytes([byte])

    async with Service().http() as http:
        reply = await http.post(CHAT_PATH, content=parts())
    assert events(reply.text)[-1] == "[DONE]"
