"""The examples run as they are."""

import asyncio
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

EXAMPLES = Path(__file__).parents[3] / "examples"


def app_of(name: str) -> FastAPI:
    app = runpy.run_path(str(EXAMPLES / f"{name}.py"))["app"]
    assert isinstance(app, FastAPI)
    return app


async def post_all(app: FastAPI, path: str, bodies: list[Any]) -> list[Any]:
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://carpool") as client,
    ):
        responses = await asyncio.gather(*(client.post(path, json=body) for body in bodies))
    assert {response.status_code for response in responses} == {200}
    return [response.json() for response in responses]


async def test_embedder_service() -> None:
    bodies = [["a car pool", "many share one ride"], ["a car pool"]] * 20
    answers = await post_all(app_of("embedder_service"), "/embed", bodies)
    assert [len(answer) for answer in answers] == [2, 1] * 20
    assert {len(vector) for answer in answers for vector in answer} == {256}
    assert answers[0][0] == pytest.approx(answers[1][0])
    assert sum(x * x for x in answers[0][0]) == pytest.approx(1)


async def test_reranker_service() -> None:
    documents = ["a bicycle", "a shared ride in a car", "a car"]
    bodies: list[dict[str, Any]] = [
        {"query": "shared car", "documents": documents, "bulk": i % 2} for i in range(20)
    ]
    for answer in await post_all(app_of("reranker_service"), "/rerank", bodies):
        assert [row["index"] for row in answer] == [1, 2, 0]
        assert [row["relevance_score"] for row in answer] == [1.0, 0.5, 0.0]


def test_plain_script() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "plain_script.py"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "99 squares" in done.stdout
    assert "13: ValueError" in done.stdout
    assert "the deadline passed" in done.stdout


@pytest.mark.parametrize("name", ["embedder_service", "reranker_service", "plain_script"])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 40
