"""Completions: every form of prompt, and the shape of replies."""

from typing import Any

import pytest

from tests.unit.gateway.serving import Service, events

PATH = "/v1/completions"


async def ask(service: Service, **fields: Any) -> Any:
    async with service.http() as http:
        reply = await http.post(PATH, json={"model": "parrot", **fields})
    assert reply.status_code == 200, reply.text
    return events(reply.text) if fields.get("stream") else reply.json()


async def test_a_whole_reply() -> None:
    reply = await ask(Service(), prompt="hello")
    assert reply["id"].startswith("cmpl-req-")
    assert reply["object"] == "text_completion"
    assert reply["choices"] == [{"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}]
    assert reply["usage"]["total_tokens"] == 10


async def test_a_stream() -> None:
    *chunks, usage, done = await ask(
        Service(), prompt="hi", stream=True, stream_options={"include_usage": True}
    )
    assert done == "[DONE]"
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["h", "i"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_with_several_choices(stream: bool) -> None:
    service = Service(cached=True)
    reply = await ask(service, prompt=["ab", "c"], n=2, stream=stream)
    texts: dict[int, str] = {}
    for body in reply[:-1] if stream else [reply]:
        for choice in body["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == {0: "ab", 1: "ab", 2: "c", 3: "c"}
    if not stream:
        assert reply["usage"]["prompt_tokens"] == 3
        assert reply["usage"]["completion_tokens"] == 6
    assert not service.client.running


@pytest.mark.parametrize(("prompt", "count"), [([5, 6], 1), ([[5, 6], [7]], 2)])
async def test_token_ids(prompt: Any, count: int) -> None:
    service = Service()
    reply = await ask(service, prompt=prompt)
    assert len(reply["choices"]) == count
    assert [g.prompt_ids for g in service.client.generates] == ([prompt] if count == 1 else prompt)
    assert [g.prompt for g in service.client.generates] == [None] * count


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_with_offsets(stream: bool) -> None:
    reply = await ask(Service(), prompt="abc", logprobs=1, stream=stream)
    parts = [body["choices"][0]["logprobs"] for body in (reply[:-1] if stream else [reply])]
    joined: dict[str, list[Any]] = {name: [x for part in parts for x in part[name]] for name in parts[0]}
    assert joined == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": [{"a": -0.5}, {"b": -0.5}, {"c": -0.5}],
        "text_offset": [0, 1, 2],
    }


async def test_one_text_goes_through_the_cache_and_several_do_not() -> None:
    service = Service(cached=True)
    async with service.http() as http:
        for prompt, outcome in [("a", "miss"), ("a", "exact"), (["a"], "exact"), (["a", "b"], "bypass")]:
            reply = await http.post(PATH, json={"model": "parrot", "prompt": prompt})
            assert reply.headers["x-carpool-cache"] == outcome
