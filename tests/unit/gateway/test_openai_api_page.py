"""docs/openai-api.md tells of every field of every request, and it tells the truth."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carpool.gateway.chat_schema import ChatMessage, ChatRequest
from carpool.gateway.completion_schema import CompletionRequest
from carpool.gateway.embedding_schema import EmbeddingRequest
from carpool.gateway.rerank_schema import RerankRequest, TeiRerankRequest
from carpool.gateway.sampling_schema import SamplingFields
from tests.unit.gateway.serving import CHAT_PATH, Service, chat

PAGE = (Path(__file__).parents[3] / "docs/openai-api.md").read_text()
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|", re.MULTILINE)

SHARED = "Chat completions and completions"
SECTIONS: list[tuple[str, type[msgspec.Struct], type[msgspec.Struct] | None]] = [
    (SHARED, SamplingFields, None),
    ("Chat completions", ChatRequest, SamplingFields),
    ("Messages", ChatMessage, None),
    ("Completions", CompletionRequest, SamplingFields),
    ("Embeddings", EmbeddingRequest, None),
    ("Rerank", RerankRequest, None),
    ("Rerank in TEI's shape", TeiRerankRequest, None),
]
VALUES: dict[str, Any] = {
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "flex",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "high",
    "verbosity": "low",
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "audio": {"voice": "x"},
    "web_search_options": {},
    "echo": True,
    "suffix": "x",
    "best_of": 5,
    "user": "x",
    "max_tokens_per_doc": 1,
    "max_chunks_per_doc": 9,
    "rank_fields": ["title"],
    "priority": 5,
    "truncation_direction": "left",
}
"""A value that asks for something, for each field that is not supported."""

COMPLETION = {"model": "parrot", "prompt": "hello"}
RERANK = {"model": "vectors", "query": "a", "documents": ["b"]}
TEI = {"model": "vectors", "query": "a", "texts": ["b"], "truncate": True}
BODIES: list[tuple[str, str, dict[str, Any]]] = [
    (SHARED, CHAT_PATH, chat()),
    (SHARED, "/v1/completions", COMPLETION),
    ("Chat completions", CHAT_PATH, chat()),
    ("Completions", "/v1/completions", COMPLETION),
    ("Embeddings", "/v1/embeddings", {"model": "vectors", "input": "a"}),
    ("Rerank", "/v1/rerank", RERANK),
    ("Rerank in TEI's shape", "/rerank", TEI),
]


def rows(section: str) -> dict[str, str]:
    """The fields of a section's table and what becomes of them."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    found = _ROW.findall(text)
    assert len(found) == len(dict(found)), "no field stands there twice"
    return dict(found)


@pytest.mark.parametrize(("section", "struct", "base"), SECTIONS)
def test_every_field_is_there(
    section: str, struct: type[msgspec.Struct], base: type[msgspec.Struct] | None
) -> None:
    shared = set() if base is None else set(base.__struct_encode_fields__)
    told = rows(section)
    assert set(told) == set(struct.__struct_encode_fields__) - shared
    assert set(told.values()) <= {"supported", "ignored", "refused"}


@pytest.mark.parametrize(("section", "path", "body"), BODIES)
async def test_what_is_said_of_a_field_is_so(section: str, path: str, body: dict[str, Any]) -> None:
    service = Service()

    def asked() -> list[Any]:
        client = service.client
        calls = [*client.generates, *client.embeds, *client.scored]
        client.generates, client.embeds, client.scored = [], [], []
        return [msgspec.structs.replace(call, timeout_s=None) for call in calls]

    async with service.http() as http:
        assert (await http.post(path, json=body)).status_code == 200
        plain = asked()
        for name, becomes in rows(section).items():
            if becomes == "supported":
                continue
            reply = await http.post(path, json={**body, name: VALUES[name]})
            if becomes == "ignored":
                assert reply.status_code == 200, name
                assert asked() == plain, name
            else:
                assert reply.status_code in (400, 422), name
                assert reply.json()["error"]["param"] == name
                assert not asked()
