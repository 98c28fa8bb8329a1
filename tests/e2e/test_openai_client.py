"""The official client, unmodified."""

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.e2e.server import Server


def test_chat_stream_completion_models_and_errors(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
        assert names == ["smollm2-135m-instruct", "all-minilm-l6-v2"]
        assert client.models.retrieve(names[0]).owned_by

        chat = client.chat.completions.create(
            model=names[0], messages=[{"role": "user", "content": "Say hello."}], max_tokens=16
        )
        assert chat.choices[0].message.content
        assert chat.usage is not None
        assert chat.usage.completion_tokens <= 16

        with client.chat.completions.stream(
            model=names[0],
            messages=[{"role": "user", "content": "Name the capital of France."}],
            temperature=0,
        ) as stream:
            pieces = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
        assert "".join(pieces) == final.choices[0].message.content

        plain = client.completions.create(
            model=names[0], prompt="The capital of France is", max_tokens=4, temperature=0
        )
        assert "Paris" in plain.choices[0].text

        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as long:
            client.chat.completions.create(
                model=names[0], messages=[{"role": "user", "content": "word " * 9000}]
            )
        assert long.value.code == "context_length_exceeded"


def test_samples_stops_json_logprobs_and_cached_tokens(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:

        def ask(question: str, **fields: Any) -> ChatCompletion:
            reply: ChatCompletion = client.chat.completions.create(
                model="smollm2-135m-instruct",
                messages=[
                    {"role": "system", "content": "You are brief. " * 30},
                    {"role": "user", "content": question},
                ],
                max_tokens=12,
                extra_body={"carpool": {"cache": "off"}},
                **fields,
            )
            return reply

        first = ask("Tell me of a river.", seed=5, temperature=1.0)
        again = ask("Tell me of a river.", n=2, seed=5, temperature=1.0, logprobs=True, top_logprobs=2)
        texts = [choice.message.content for choice in again.choices]
        assert texts[0] == first.choices[0].message.content, "alone, and with a cached prompt"
        assert texts[0] != texts[1]
        for choice in again.choices:
            assert choice.logprobs is not None
            assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content or [])
            written = bytes(byte for token in choice.logprobs.content or [] for byte in token.bytes or [])
            assert (choice.message.content or "").encode() in written
        usages = [reply.usage and reply.usage.prompt_tokens_details for reply in (first, again)]
        cached = [usage.cached_tokens if usage else None for usage in usages]
        assert cached[0] == 0
        assert (cached[1] or 0) > 64, "what both prompts begin with was computed once"

        alone = client.chat.completions.create(
            model="smollm2-135m-instruct",
            messages=[{"role": "user", "content": "Nobody has asked this before. " * 20}],
            n=2,
            max_tokens=2,
        )
        assert alone.usage is not None
        assert alone.usage.prompt_tokens_details is not None
        assert alone.usage.prompt_tokens_details.cached_tokens == 0, "one choice computed it for the other"

        plain = ask("What is the capital of France?", temperature=0)
        assert "Paris" in (plain.choices[0].message.content or "")
        stopped = ask("What is the capital of France?", temperature=0, stop="Paris")
        assert "Paris" not in (stopped.choices[0].message.content or "")
        assert stopped.choices[0].finish_reason == "stop"
        assert stopped.usage is not None
        assert stopped.usage.prompt_tokens_details is not None
        assert (stopped.usage.prompt_tokens_details.cached_tokens or 0) > 64

        answer = ask("Name a city as JSON.", temperature=0, response_format={"type": "json_object"})
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
        assert (answer.choices[0].message.content or "").startswith("{")


async def test_async_client_leaves_a_stream_early(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        for _ in range(3):
            stream = await client.chat.completions.create(
                model="smollm2-135m-instruct",
                messages=[{"role": "user", "content": "Tell me everything."}],
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for _chunk in stream:
                break
            await stream.close()
        embedded = await client.embeddings.create(model="all-minilm-l6-v2", input="still here")
        assert len(embedded.data[0].embedding) == 384
