"""Cohere's official client, unmodified, against a real server."""

from typing import Any

import cohere
import pytest
from cohere.core.api_error import ApiError

from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import Service

DOCUMENTS = ["xyz", "cab", "a", "bca"]


async def test_both_versions_of_the_client_rerank() -> None:
    service = Service(client=LocalClient(reranker=True))
    async with service.listening() as url:
        async with cohere.AsyncClientV2(api_key="none", base_url=url) as newer:
            reply: Any = await newer.rerank(model="judge", query="abc", documents=DOCUMENTS, top_n=3)
        async with cohere.AsyncClient(api_key="none", base_url=url) as older:
            with_text = await older.rerank(
                query="abc", documents=[{"text": each} for each in DOCUMENTS], return_documents=True
            )
    assert [(row.index, row.relevance_score) for row in reply.results] == [
        (1, 1.0),
        (3, 1.0),
        (2, pytest.approx(1 / 3)),
    ]
    assert reply.id
    assert reply.meta is not None
    assert reply.meta.tokens is not None
    assert reply.meta.tokens.input_tokens == 13
    assert [row.document.text for row in with_text.results if row.document] == ["cab", "bca", "a", "xyz"]


async def test_errors_carry_their_status_and_envelope() -> None:
    async with Service().listening() as url, cohere.AsyncClientV2(api_key="none", base_url=url) as client:
        with pytest.raises(ApiError) as refused:
            await client.rerank(model="vectors", query="a", documents=["a", ""])
        with pytest.raises(ApiError) as unknown:
            await client.rerank(model="rerank-v9", query="a", documents=["a"])
    assert (refused.value.status_code, unknown.value.status_code) == (400, 404)
    assert refused.value.body["error"]["param"] == "documents[1]"
