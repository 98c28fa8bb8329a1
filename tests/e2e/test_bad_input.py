"""Every bad input has OpenAI's envelope and status, and the next request is served."""

from typing import Any

import pytest

from tests.e2e.server import Server

CHAT = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hi"}]}
EMBED = {"model": "all-minilm-l6-v2", "input": "Hi"}
RERANK = {"query": "Hi", "documents": ["Hello"]}


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/v1/chat/completions", b"{not json", 400, None, None),
        ("/v1/chat/completions", b"[]", 400, None, None),
        ("/v1/chat/completions", b"\xff\xfe", 400, None, None),
        ("/v1/chat/completions", {**CHAT, "model": "gpt-9"}, 404, "model_not_found", "model"),
        ("/v1/chat/completions", {**CHAT, "messages": []}, 400, None, "messages"),
        ("/v1/chat/completions", {"model": CHAT["model"]}, 400, None, "messages"),
        ("/v1/chat/completions", {**CHAT, "temperature": "hot"}, 400, None, "temperature"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 0}, 400, None, "max_tokens"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 9000}, 400, "context_length_exceeded", None),
        ("/v1/chat/completions", {**CHAT, "frobnicate": 1}, 400, None, "frobnicate"),
        ("/v1/chat/completions", {**CHAT, "logit_bias": {"9" * 20: 1}}, 400, None, None),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [{"role": "user", "content": "word " * 9000}]},
            400,
            "context_length_exceeded",
            "messages",
        ),
        ("/v1/chat/completions", {**CHAT, "model": "all-minilm-l6-v2"}, 400, None, "model"),
        ("/v1/embeddings", {**EMBED, "input": []}, 400, None, "input"),
        ("/v1/embeddings", {**EMBED, "input": ["fine", 5]}, 400, None, "input[1]"),
        ("/v1/embeddings", {**EMBED, "input": [1, 2, 3]}, 400, None, "input"),
        ("/v1/embeddings", {**EMBED, "model": "smollm2-135m-instruct"}, 400, None, "model"),
        ("/v1/embeddings", {**EMBED, "input": "word " * 9000}, 400, "context_length_exceeded", None),
        ("/v1/embeddings", {**EMBED, "input": ["fine", "word " * 9000]}, 400, None, "input[1]"),
        ("/v1/embeddings", {**EMBED, "input": ["fine", ""]}, 400, None, "input[1]"),
        ("/v1/embeddings", {**EMBED, "input": "a" * 10_000_000}, 400, None, "input[0]"),
        (
            "/v1/embeddings",
            b'{"model": "all-minilm-l6-v2", "input": "a", "dimensions": NaN}',
            400,
            None,
            None,
        ),
        ("/v1/embeddings", {**EMBED, "texts": ["a"]}, 400, None, "texts"),
        ("/rerank", {"query": "a", "documents": []}, 400, None, "documents"),
        ("/rerank", {"query": "", "documents": ["a"]}, 400, None, "query"),
        ("/rerank", {"query": "a", "documents": ["a", ""]}, 400, None, "documents[1]"),
        ("/rerank", {"query": "a", "documents": ["a"], "top_k": 1}, 400, None, "top_k"),
        ("/rerank", b'{"query": "a", "documents": ["a"], "top_n": NaN}', 400, None, None),
        ("/rerank", {**RERANK, "model": "smollm2-135m-instruct"}, 400, None, "model"),
        ("/rerank", {**RERANK, "model": "rerank-v9"}, 404, "model_not_found", "model"),
        ("/rerank", {"query": "a", "texts": ["a", ""]}, 422, "validation", "texts[1]"),
        ("/rerank", {"query": "a", "texts": ["a", "b" * 10_000_000]}, 422, "validation", "texts[1]"),
        ("/v1/rerank", {**RERANK, "documents": ["a" * 17_000_000]}, 413, "payload_too_large", None),
        ("/v1/nothing", {}, 404, "not_found", None),
    ],
)
def test_refused_with_the_envelope(
    server: Server, path: str, body: Any, status: int, code: str | None, param: str | None
) -> None:
    with server.client() as client:
        if isinstance(body, bytes):
            reply = client.post(path, content=body, headers={"content-type": "application/json"})
        else:
            reply = client.post(path, json=body)
        error = reply.json()["error"]
        assert reply.status_code == status, reply.text
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert "Traceback" not in reply.text
        assert reply.headers["x-request-id"]
        if code:
            assert error["code"] == code
        if param:
            assert error["param"] == param
        assert client.post("/v1/embeddings", json=EMBED).status_code == 200


def test_a_wrong_method_is_405(server: Server) -> None:
    with server.client() as client:
        reply = client.get("/v1/chat/completions")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
