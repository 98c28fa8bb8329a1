"""The official client, unmodified, against a real server."""

import asyncio
from typing import Any

import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionToolParam

from carpool.errors import WorkerDied
from carpool.gateway.config import GatewayConfig
from tests.unit.gateway.local_client import vector_of
from tests.unit.gateway.real_worker import key_of
from tests.unit.gateway.serving import Service
from tests.unit.worker.echo import byte_tokenizer, until

TEXTS = ["abc", "de"]
CALLS = (("weather", '{"city": "Rome"}'), ("time", "{}"))
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name, _ in CALLS
]


def connect(url: str, api_key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0)


async def chat(service: Service, text: str = "hello", *, streamed: bool, **fields: Any) -> ChatCompletion:
    """What the client makes of the reply, whole or put together from a stream."""
    asked: dict[str, Any] = {"model": "parrot", "messages": [{"role": "user", "content": text}], **fields}
    async with service.listening() as url, connect(url) as client:
        if not streamed:
            whole: ChatCompletion = await client.chat.completions.create(**asked)
            return whole
        async with client.chat.completions.stream(**asked) as stream:
            return await stream.get_final_completion()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"n": 3}, "hello"),
        ({"stop": "lo"}, "hel"),
        ({"stop": ["x", "l"]}, "he"),
        ({"seed": 7}, "hello"),
        ({"temperature": 0.5, "top_p": 0.5, "frequency_penalty": 1, "presence_penalty": 1}, "hello"),
        ({"logit_bias": {"5": -100}}, "hello"),
        ({"response_format": {"type": "json_object"}}, "hello"),
        ({"tools": TOOLS, "tool_choice": "none"}, "hello"),
        ({"user": "ann", "metadata": {"a": "b"}, "store": False}, "hello"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
async def test_what_a_chat_may_ask_for(fields: dict[str, Any], text: str, streamed: bool) -> None:
    service = Service()
    reply = await chat(service, streamed=streamed, **fields)
    assert [(choice.index, choice.message.content) for choice in reply.choices] == [
        (index, text) for index in range(fields.get("n", 1))
    ]
    assert {choice.finish_reason for choice in reply.choices} == {"stop"}
    (generate,) = service.client.generates
    assert (generate.seed, generate.n) == (fields.get("seed"), fields.get("n", 1))
    assert (generate.temperature, generate.top_p) == (fields.get("temperature"), fields.get("top_p"))
    assert generate.frequency_penalty == generate.presence_penalty == fields.get("frequency_penalty", 0)
    assert generate.logit_bias == ({5: -100} if "logit_bias" in fields else {})
    assert (generate.grammar is not None) == ("response_format" in fields)
    assert generate.tools is None


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_several_calls_in_one_reply(streamed: bool) -> None:
    written = "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        for name, arguments in CALLS
    )
    reply = await chat(Service(), written, streamed=streamed, tools=TOOLS)
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls if call.type == "function"] == [
        *CALLS
    ]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_logprobs_of_the_likeliest_tokens(streamed: bool) -> None:
    reply = await chat(Service(), streamed=streamed, logprobs=True, top_logprobs=2)
    assert reply.choices[0].logprobs is not None
    tokens = reply.choices[0].logprobs.content or []
    assert [(each.token, each.logprob, each.bytes) for each in tokens] == [
        (letter, -0.5, [ord(letter)]) for letter in "hello"
    ]
    assert all([top.token for top in each.top_logprobs] == [each.token] * 2 for each in tokens)


async def test_a_reply_that_is_cut_off() -> None:
    whole = await chat(Service(), streamed=False, max_completion_tokens=2)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("he", "length")
    with pytest.raises(openai.LengthFinishReasonError) as cut:
        await chat(Service(), streamed=True, max_completion_tokens=2)
    assert cut.value.completion.choices[0].message.content == "he"


@pytest.mark.parametrize("prompt", [TEXTS, list(map(byte_tokenizer().encode, TEXTS))], ids=["texts", "ids"])
async def test_several_prompts_n_stop_and_logprobs_of_completions(prompt: Any) -> None:
    async with Service().listening() as url, connect(url) as client:
        whole = await client.completions.create(model="parrot", prompt=prompt, n=2, stop="c", seed=1)
        assert [(choice.index, choice.text) for choice in whole.choices] == [
            *((0, "ab"), (1, "ab"), (2, "de"), (3, "de"))
        ]
        with_logprobs = await client.completions.create(model="parrot", prompt=prompt, logprobs=1)
        logprobs = with_logprobs.choices[1].logprobs
        assert logprobs is not None
        assert (logprobs.tokens, logprobs.token_logprobs) == (["d", "e"], [-0.5, -0.5])
        assert (logprobs.top_logprobs, logprobs.text_offset) == ([{"d": -0.5}, {"e": -0.5}], [0, 1])
        texts = ["", ""]
        async for chunk in await client.completions.create(model="parrot", prompt=prompt, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
        assert texts == TEXTS


async def test_embeddings_of_fewer_dimensions_for_a_user() -> None:
    async with Service().listening() as url, connect(url) as client:
        reply = await client.embeddings.create(model="vectors", input=["a", "b"], dimensions=3, user="ann")
    for row, text in zip(reply.data, "ab", strict=True):
        head = vector_of(text, 8)[:3]
        assert row.embedding == pytest.approx(head / np.linalg.norm(head), rel=1e-6)


async def test_refusals_are_the_clients_own_classes() -> None:
    keys = (key_of("ask"), key_of("watch", scopes=("metrics",)), key_of("once", requests_per_minute=1))
    service = Service(GatewayConfig(keys=keys, request_timeout_s=0.05))

    async def ask(key: str) -> ChatCompletion:
        async with connect(url, key) as client:
            return await client.chat.completions.create(
                model="parrot", messages=[{"role": "user", "content": "hello"}]
            )

    async with service.listening() as url:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await ask("sk-nobody")
        assert (unknown.value.status_code, unknown.value.code) == (401, "invalid_api_key")
        with pytest.raises(openai.PermissionDeniedError) as denied:
            await ask("sk-watch")
        assert denied.value.status_code == 403
        service.client.going.clear()
        for key in ("sk-ask", "sk-once"):
            with pytest.raises(openai.InternalServerError) as late:
                await ask(key)
            assert (late.value.status_code, late.value.type) == (504, "timeout_error")
        with pytest.raises(openai.RateLimitError) as many:
            await ask("sk-once")
        assert (many.value.status_code, many.value.code) == (429, "rate_limit_exceeded")


async def test_chat_whole_and_streamed() -> None:
    async with Service(cached=True).listening() as url, connect(url) as client:
        whole = await client.chat.completions.create(
            model="parrot", messages=[{"role": "user", "content": "hello"}], logprobs=True
        )
        assert whole.choices[0].message.content == "hello"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert whole.usage.total_tokens == 10
        assert whole.choices[0].logprobs is not None
        assert whole.choices[0].logprobs.content is not None
        async with client.chat.completions.stream(
            model="parrot",
            messages=[{"role": "user", "content": "hello"}],
            stream_options={"include_usage": True},
        ) as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
            final = await stream.get_final_completion()
        assert "".join(deltas) == final.choices[0].message.content == "hello"
        assert final.usage is not None
        assert final.usage.completion_tokens == 5


async def test_completions_embeddings_and_models() -> None:
    async with Service().listening() as url, connect(url) as client:
        text = await client.completions.create(model="parrot", prompt="hello", max_tokens=2)
        assert (text.choices[0].text, text.choices[0].finish_reason) == ("he", "length")
        pieces = [
            chunk.choices[0].text
            async for chunk in await client.completions.create(model="parrot", prompt="hello", stream=True)
        ]
        assert "".join(pieces) == "hello"
        coded = await client.embeddings.create(model="vectors", input=["a", "b"])
        floats = await client.embeddings.create(model="vectors", input=["a", "b"], encoding_format="float")
        assert coded.data[1].embedding == pytest.approx(floats.data[1].embedding)
        assert coded.usage.prompt_tokens == 2
        assert [model.id async for model in client.models.list()] == ["parrot", "vectors"]
        assert (await client.models.retrieve("org/parrot")).id == "parrot"


async def test_errors_are_the_clients_own_classes() -> None:
    service = Service()
    async with service.listening() as url, connect(url) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.embeddings.create(model="none", input="a")
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as bad:
            await client.chat.completions.create(model="parrot", messages=[])
        assert bad.value.param == "messages"
        assert bad.value.request_id
        service.client.failure = WorkerDied("The worker ended.")
        stream = await client.chat.completions.create(
            model="parrot", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        with pytest.raises(openai.APIError, match="The worker ended"):
            async for _ in stream:
                pass
        with pytest.raises(openai.InternalServerError) as died:
            await client.chat.completions.create(
                model="parrot", messages=[{"role": "user", "content": "hello"}]
            )
        assert died.value.status_code == 503


async def test_leaving_a_stream_early_frees_the_place() -> None:
    service = Service()
    async with service.listening() as url, connect(url) as client:
        stream = await client.chat.completions.create(
            model="parrot", messages=[{"role": "user", "content": "a" * 50}], stream=True
        )
        service.client.going.clear()
        await stream.close()
        await until(lambda: bool(service.client.cancelled))


async def test_many_at_once() -> None:
    async with Service().listening() as url, connect(url) as client:
        replies = await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="parrot", messages=[{"role": "user", "content": f"number {i}"}]
                )
                for i in range(32)
            )
        )
    assert [reply.choices[0].message.content for reply in replies] == [f"number {i}" for i in range(32)]
