"""Repeated questions on the real server: exact and semantic hits, and who may not share them."""

import hashlib
import json
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server

MODEL = "smollm2-135m-instruct"


def ask(server: Server, question: str, **fields: Any) -> tuple[str, dict[str, str]]:
    """The answer's text and the cache's headers, without their prefix."""
    key = fields.pop("key", None)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    # Greedy answers end below 200 tokens and are stored; a drawn one may run on up to the context's end.
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 200,
        **fields,
    }
    with server.client(**headers) as client:
        reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    found = {
        name.removeprefix("x-carpool-cache-").removeprefix("x-carpool-"): value
        for name, value in reply.headers.items()
        if name.startswith("x-carpool-cache")
    }
    return str(reply.json()["choices"][0]["message"]["content"]), {
        "id": reply.headers["x-request-id"],
        **found,
    }


def test_exact_then_semantic_then_bypass(server: Server) -> None:
    first, miss = ask(server, "What is the largest planet of our solar system?")
    assert miss["cache"] == "miss"

    again, exact = ask(server, "What is the largest planet of our solar system?")
    assert (exact["cache"], exact["match"]) == ("exact", miss["id"])
    assert again == first
    assert float(exact["age"]) >= 0

    meant, semantic = ask(server, "Which is the largest planet in our solar system?")
    assert (semantic["cache"], semantic["match"]) == ("semantic", miss["id"])
    assert 0.8 < float(semantic["similarity"]) <= 1
    assert meant == first

    _, bypass = ask(server, "What is the largest planet of our solar system?", carpool={"cache": "off"})
    assert bypass["cache"] == "bypass"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.2},
        {"top_p": 0.5},
        {
            "messages": [
                {"role": "system", "content": "Answer in French."},
                {"role": "user", "content": "How many legs does a spider have?"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "I like beetles."},
                {"role": "assistant", "content": "Good."},
                {"role": "user", "content": "How many legs does a spider have?"},
            ]
        },
    ],
)
def test_another_partition_never_hits(server: Server, fields: dict[str, Any]) -> None:
    ask(server, "How many legs does a spider have?")
    _, found = ask(server, "How many legs does a spider have?", **fields)
    assert found["cache"] == "miss"


def test_streamed_hit_replays_the_answer(server: Server) -> None:
    question = "What is the capital of Japan?"
    text, _ = ask(server, question)
    with server.client() as client:
        reply = client.post(
            "/v1/chat/completions",
            json={
                "model": MODEL,
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "stream": True,
            },
        )
    assert reply.headers["x-carpool-cache"] == "exact"
    events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == text


def test_tenants_share_nothing_and_the_answers_survive_a_restart(start: Start) -> None:
    keys = {"red": "sk-red-0123456789", "blue": "sk-blue-0123456789"}
    settings = {
        "keys": [
            {"name": name, "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}", "tenant": name}
            for name, key in keys.items()
        ]
    }
    question = "What is the boiling point of water?"
    server = start(settings=settings).wait_ready()
    _, first = ask(server, question, key=keys["red"])
    _, stranger = ask(server, question, key=keys["blue"])
    assert (first["cache"], stranger["cache"]) == ("miss", "miss")
    with server.client() as client:
        refused = client.post("/v1/chat/completions", json={})
        unknown = client.get("/no/such/route")
        alive = client.get("/health/live")
    assert (refused.status_code, unknown.status_code, alive.status_code) == (401, 401, 200)
    assert refused.json()["error"]["code"] == "invalid_api_key"
    path = server.cache_path
    server.process.kill()
    server.stop()

    server = start(settings=settings, env={"CARPOOL_CACHE__PATH": str(path)}).wait_ready()
    _, found = ask(server, question, key=keys["red"])
    assert (found["cache"], found["match"]) == ("exact", first["id"])


def test_a_served_chat_model_judges_what_was_served(start: Start) -> None:
    """The starter model is no good judge: that it speaks, and is counted, is all that is asked of it."""
    quality = {"judge": MODEL, "judge_quality": [93, 100, 970, 1000], "audit_rate": 1.0}
    server = start(settings={"cache": quality}).wait_ready()
    ask(server, "What is the largest planet of our solar system?")
    _, semantic = ask(server, "Which is the largest planet in our solar system?")
    assert semantic["cache"] == "semantic"
    page = server.wait_metric("carpool_cache_verdicts_total", 1)
    (line,) = [line for line in page.splitlines() if line.startswith("carpool_cache_verdicts_total{")]
    assert f'judge="{MODEL}"' in line
    assert 'verdict="wrong"' in line or 'verdict="right"' in line
