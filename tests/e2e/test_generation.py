"""What a server refuses for want of context or memory, and static batches."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from carpool.models.starter import CHAT_MODEL
from tests.e2e.conftest import Start
from tests.e2e.server import Server

CHAT = {"model": CHAT_MODEL.model_id, "messages": [{"role": "user", "content": "Count the waves."}]}


@pytest.fixture(scope="module")
def small(start: Start) -> Server:
    """Static batches in KV memory for a few hundred tokens."""
    options = {"mode": "static", "kv_cache_bytes": 8 << 20}
    settings = {"models": [{"reference": CHAT_MODEL.reference, "options": options}], "cache": {"mode": "off"}}
    return start(settings=settings).wait_ready()


def test_a_request_beyond_the_context_is_refused_with_both_numbers(server: Server) -> None:
    with server.client() as client:
        prompt_tokens = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1}).json()["usage"][
            "prompt_tokens"
        ]
        reply = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 9000})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "max_tokens",
    )
    for number in (8192, prompt_tokens, 9000, prompt_tokens + 9000):
        assert str(number) in error["message"]


def test_what_can_never_fit_the_memory_is_refused_and_not_queued(small: Server) -> None:
    with small.client() as client:
        reply = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 4000})
        assert reply.status_code == 400, reply.text
        assert "KV memory" in reply.json()["error"]["message"]
        assert client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 4}).status_code == 200


def test_static_batches_answer_everybody(small: Server) -> None:
    def ask(max_tokens: int) -> int:
        body = {**CHAT, "max_tokens": max_tokens, "ignore_eos": True}
        with small.client() as client:
            tokens: int = client.post("/v1/chat/completions", json=body).json()["usage"]["completion_tokens"]
            return tokens

    lengths = [2, 12, 4, 8, 3, 9, 5, 7, 2, 6]
    with ThreadPoolExecutor(len(lengths)) as pool:
        assert list(pool.map(ask, lengths)) == lengths
