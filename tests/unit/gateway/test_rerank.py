"""Rerank: both shapes, who scores where nobody is named, large and bad requests."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from carpool.gateway.config import GatewayConfig, RerankConfig
from carpool.gateway.rerank_reply import ranked, ranking_slices, tei_slices
from carpool.inference_engine import Priority
from tests.unit.gateway.local_client import RERANK, LocalClient
from tests.unit.gateway.serving import RawCall, Service
from tests.unit.worker.echo import until

PATHS = ["/rerank", "/v1/rerank", "/v2/rerank"]
DOCUMENTS = ["xyz", "cab", "a", "bca"]
"""For the query `abc`: the second and the last are equally good."""


def service_with_reranker() -> Service:
    return Service(client=LocalClient(reranker=True))


async def rerank(service: Service, path: str = "/v1/rerank", **fields: Any) -> Any:
    async with service.http() as http:
        reply = await http.post(path, json={"query": "abc", **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("path", PATHS)
async def test_coheres_shape(path: str) -> None:
    async with service_with_reranker().http() as http:
        reply = await http.post(
            path,
            json={"model": "judge", "query": "abc", "documents": DOCUMENTS},
            headers={"x-request-id": "r1"},
        )
    assert reply.json() == {
        "id": "r1",
        "object": "list",
        "model": "judge",
        "results": [
            {"index": 1, "relevance_score": 1.0},
            {"index": 3, "relevance_score": 1.0},
            {"index": 2, "relevance_score": pytest.approx(1 / 3)},
            {"index": 0, "relevance_score": 0.0},
        ],
        "usage": {"prompt_tokens": 13, "total_tokens": 13},
        "meta": {"tokens": {"input_tokens": 13}},
    }
    assert reply.headers["x-carpool-model"] == "judge"


@pytest.mark.parametrize("path", PATHS)
async def test_teis_shape(path: str) -> None:
    async with service_with_reranker().http() as http:
        reply = await http.post(path, json={"query": "abc", "texts": DOCUMENTS})
    assert reply.json() == [
        {"index": 1, "score": 1.0},
        {"index": 3, "score": 1.0},
        {"index": 2, "score": pytest.approx(1 / 3)},
        {"index": 0, "score": 0.0},
    ]
    assert reply.headers["x-carpool-model"] == "judge"


async def test_documents_come_back_when_asked_for() -> None:
    objects = [{"text": text} for text in DOCUMENTS]
    reply = await rerank(service_with_reranker(), documents=objects, return_documents=True, top_n=2)
    assert [(row["index"], row["document"]) for row in reply["results"]] == [
        (1, {"text": "cab"}),
        (3, {"text": "bca"}),
    ]
    tei = await rerank(service_with_reranker(), texts=DOCUMENTS, return_text=True)
    assert [row["text"] for row in tei] == ["cab", "bca", "a", "xyz"]


async def test_more_than_there_are_is_all_of_them() -> None:
    assert len((await rerank(Service(), documents=["a", "b"], top_n=10))["results"]) == 2


async def test_each_shape_cuts_or_refuses_as_its_authors_have_it() -> None:
    service = Service()
    await rerank(service, documents=["a"])
    await rerank(service, documents=["a"], truncate=False, max_tokens_per_doc=4096, max_chunks_per_doc=1)
    await rerank(service, texts=["a"])
    await rerank(service, texts=["a"], truncate=True, truncation_direction="Right", raw_scores=True)
    calls = service.client.scored
    assert [call.truncate for call in calls] == [True, False, False, True]
    assert [call.raw for call in calls] == [False, False, False, True]


async def test_without_a_name_the_reranker_scores_else_the_embedding_model() -> None:
    assert (await rerank(service_with_reranker(), documents=["a"]))["model"] == "judge"
    service = Service()
    reply = await rerank(service, documents=["xyz", "abc"])
    assert (reply["model"], reply["results"][0]) == ("vectors", {"index": 1, "relevance_score": 0.0})
    assert [call.model for call in service.client.scored] == ["vectors"]
    assert (await rerank(service_with_reranker(), documents=["a"], model="vectors"))["model"] == "vectors"


async def test_several_that_could_must_be_told_apart() -> None:
    service = service_with_reranker()
    service.client.set_state("parrot", task="rerank")
    async with service.http() as http:
        reply = await http.post("/rerank", json={"query": "a", "documents": ["a"]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
    assert "`parrot`, `judge`" in reply.json()["error"]["message"]


async def test_a_model_that_is_loading_may_turn_out_to_be_the_reranker() -> None:
    service = service_with_reranker()
    service.client.set_state(RERANK.name, phase="compiling", task=None)
    async with service.http() as http:
        unnamed = await http.post("/rerank", json={"query": "a", "documents": ["a"]})
        assert (unnamed.status_code, unnamed.json()["error"]["code"]) == (503, "model_loading")
        assert unnamed.headers["retry-after"]
        named = await http.post("/rerank", json={"model": "vectors", "query": "a", "documents": ["a"]})
        assert named.status_code == 200
        service.client.set_state(RERANK.name, phase="failed")
        assert (await http.post("/rerank", json={"query": "a", "texts": ["a"]})).status_code == 200
        service.client.set_state("vectors", phase="failed", task=None)
        nobody = await http.post("/rerank", json={"query": "a", "texts": ["a"]})
        assert (nobody.status_code, nobody.json()["error"]["code"]) == (404, "model_not_found")


async def test_large_calls_give_way_unless_the_header_says_otherwise() -> None:
    service = Service()
    await rerank(service, documents=["a"] * 63)
    await rerank(service, texts=["a"] * 64)
    async with service.http(**{"x-carpool-priority": "interactive"}) as http:
        await http.post("/rerank", json={"query": "a", "texts": ["a"] * 64})
    async with service.http(**{"x-carpool-priority": "bulk"}) as http:
        await http.post("/rerank", json={"query": "a", "texts": ["a"]})
        await http.post("/v1/embeddings", json={"model": "vectors", "input": "a"})
    lanes = [call.priority for call in service.client.scored]
    assert lanes == [Priority.INTERACTIVE, Priority.BULK, Priority.INTERACTIVE, Priority.BULK]
    assert service.client.embeds[0].priority == Priority.BULK
    async with service.http(**{"x-carpool-priority": "urgent"}) as http:
        refused = await http.post("/rerank", json={"query": "a", "documents": ["a"]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-carpool-priority")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[1]", None),
        (b'{"query": "a", "documents": ["a"], "top_n": NaN}', None),
        (("[" * 100_000).encode(), None),
        (('{"texts":' + "[" * 100_000).encode(), "texts"),
        ({}, "query"),
        ({"query": "a"}, "documents"),
        ({"documents": ["a"]}, "query"),
        ({"query": ["a"], "documents": ["a"]}, "query"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a", "documents": "a"}, "documents"),
        ({"query": "a", "documents": {"text": "a"}}, "documents"),
        ({"query": "a", "documents": ["a", 5]}, "documents[1]"),
        ({"query": "a", "documents": ["a", None]}, "documents[1]"),
        ({"query": "a", "documents": ["a", {"title": "a"}]}, "documents[1].title"),
        ({"query": "a", "documents": ["a", {}]}, "documents[1].text"),
        ({"query": "a", "documents": ["a", {"text": "a", "image": "b"}]}, "documents[1].image"),
        ({"query": "a", "documents": ["a", ""]}, "documents[1]"),
        ({"query": "a", "documents": ["a"] * 4097}, "documents"),
        ({"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "a", "documents": ["a"], "top_n": 1.5}, "top_n"),
        ({"query": "a", "documents": ["a"], "model": ""}, "model"),
        ({"query": "a", "documents": ["a"], "model": "parrot"}, "model"),
        ({"query": "a", "documents": ["a"], "raw_scores": True}, "raw_scores"),
        ({"query": "a", "documents": ["a"], "frobnicate": 1}, "frobnicate"),
    ],
)
async def test_a_bad_request_is_400_and_names_the_field(body: Any, param: str | None) -> None:
    await refused(body, 400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"texts": ["a"]}, "query"),
        ({"query": "a", "texts": []}, "texts"),
        ({"query": "a", "texts": "a"}, "texts"),
        ({"query": "a", "texts": None}, "texts"),
        ({"query": "a", "texts": ["a", {"text": "a"}]}, "texts[1]"),
        ({"query": "a", "texts": ["a", ""]}, "texts[1]"),
        ({"query": "a", "texts": ["a"] * 4097}, "texts"),
        ({"query": "a", "texts": ["a"], "documents": ["a"]}, "documents"),
        ({"query": "a", "texts": ["a"], "top_n": 1}, "top_n"),
        ({"query": "a", "texts": ["a"], "truncation_direction": "up"}, "truncation_direction"),
        (
            {"query": "a", "texts": ["a"], "truncate": True, "truncation_direction": "left"},
            "truncation_direction",
        ),
        ({"query": "a", "texts": ["a"], "model": "parrot"}, "model"),
    ],
)
async def test_in_teis_shape_it_is_422(body: Any, param: str) -> None:
    error = await refused(body, 422, param)
    assert "documents[" not in error["message"]


async def refused(body: Any, status: int, param: str | None) -> Any:
    service = Service()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with service.http() as http:
        reply = await http.post("/rerank", content=content)
        error = reply.json()["error"]
        assert reply.status_code == status, error
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param, error
        assert reply.headers["x-should-retry"] == "false"
        assert (await http.post("/rerank", json={"query": "a", "documents": ["a"]})).status_code == 200
    return error


@pytest.mark.parametrize(
    "field",
    [{"max_tokens_per_doc": 63}, {"max_chunks_per_doc": 10}, {"rank_fields": ["title"]}, {"priority": 5}],
)
async def test_what_is_known_but_not_served_is_said_so(field: dict[str, Any]) -> None:
    error = await refused({"query": "a", "documents": ["a"], **field}, 400, next(iter(field)))
    assert error["code"] == "unsupported"


async def test_an_unknown_model_is_404_in_both_shapes() -> None:
    async with Service().http() as http:
        for documents in ("documents", "texts"):
            body = {"model": "gpt-9", "query": "a", documents: ["a"]}
            reply = await http.post("/v1/rerank", json=body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


async def test_the_bounds_are_settings() -> None:
    service = Service(GatewayConfig(rerank=RerankConfig(max_documents=2), max_body_bytes=200))
    async with service.http() as http:
        many = await http.post("/rerank", json={"query": "a", "documents": ["a"] * 3})
        assert (many.status_code, many.json()["error"]["param"]) == (400, "documents")
        large = await http.post("/rerank", json={"query": "a", "documents": ["a" * 200]})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "payload_too_large")
        large = await http.post("/rerank", json={"query": "a", "texts": ["a" * 200]})
        assert large.status_code == 413


async def test_a_client_that_leaves_takes_its_call_with_it() -> None:
    service = Service()
    service.client.going.clear()
    call = RawCall(service.app, "/rerank", json.dumps({"query": "a", "texts": ["a"]}).encode())
    await until(lambda: bool(service.client.running))
    await call.leave()
    assert service.client.cancelled
    assert call.status == 0


async def test_scores_are_counted() -> None:
    service = Service()
    await rerank(service, documents=DOCUMENTS)
    async with service.http() as http:
        lines = (await http.get("/metrics")).text.splitlines()
    assert 'carpool_rerank_documents_total{model="vectors"} 4' in lines
    assert 'carpool_tokens_total{cache="bypass",kind="prompt",model="vectors"} 13' in lines
    assert 'carpool_requests_total{method="POST",route="/v1/rerank",status="200"} 1' in lines


def test_equal_scores_keep_the_documents_order() -> None:
    scores = np.array([0.5, 1.0, 0.5, 1.0, 0.5], np.float32)
    assert ranked(scores, None) == [1, 3, 0, 2, 4]
    assert ranked(scores, 3) == [1, 3, 0]


@pytest.mark.parametrize("length", [0, 10, 100_000, 300_000])
def test_slices_join_to_one_body(length: int) -> None:
    scores = np.random.default_rng(0).standard_normal(3000 if length <= 10 else 20).astype(np.float32)
    documents = [f"{index} " + 'x"' * (length // 2) for index in range(len(scores))] if length else None
    order = ranked(scores, None)
    parts = list(ranking_slices('id"', "m", scores, order, documents, 7))
    body = json.loads(b"".join(parts))
    assert body["id"] == 'id"'
    assert [row["index"] for row in body["results"]] == order
    assert [row["relevance_score"] for row in body["results"]] == scores[order].tolist()
    assert length == 0 or [row["document"]["text"] for row in body["results"]] == [
        (documents or [])[index] for index in order
    ]
    tei_parts = list(tei_slices(scores, order, documents))
    assert [row["index"] for row in json.loads(b"".join(tei_parts))] == order
    assert len(parts) == len(tei_parts) >= 3
    longest = max(map(len, parts))
    assert longest < 1024 * 1024


async def test_others_go_on_while_a_large_reply_is_written() -> None:
    service = Service()
    documents = ["x" * 20_000 + f"{index}" for index in range(500)]
    async with service.http() as http:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        reply = await http.post(
            "/rerank", json={"query": "x", "documents": documents, "return_documents": True}
        )
        ticking.cancel()
    assert [row["document"]["text"] for row in reply.json()["results"]] == documents
    assert ticks > 30
