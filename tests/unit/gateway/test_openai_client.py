"""The official client, unmodified, against a real server."""

import asyncio

import openai
import pytest

from carpool.errors import WorkerDied
from tests.unit.gateway.serving import Service
from tests.unit.worker.echo import until


def connect(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


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
