"""`cache` of a key, of a model and of a request: the narrowest holds, and opt-in wants to be asked."""

import hashlib

import pytest

from carpool.cache.config import CacheConfig, Mode
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.gateway.config import GatewayConfig, KeyConfig
from carpool.telemetry import Registry
from tests.unit.cache.bag_of_words import BagOfWords
from tests.unit.gateway.serving import CHAT_PATH, Service, chat

STORED = "How can I learn to play the guitar at home?"
SAME = "how can I learn to play the guitar at home"


@pytest.mark.parametrize(
    ("server", "key", "model", "requested", "outcomes"),
    [
        ("on", None, None, None, ["exact", "semantic"]),
        ("on", "on", "on", "exact", ["exact", "miss"]),
        ("on", "exact", None, None, ["exact", "miss"]),
        ("on", None, "exact", None, ["exact", "miss"]),
        ("on", "exact", "on", "on", ["exact", "miss"]),
        ("on", "opt-in", None, None, ["bypass", "bypass"]),
        ("on", None, "opt-in", None, ["bypass", "bypass"]),
        ("on", "opt-in", None, "on", ["exact", "semantic"]),
        ("on", "opt-in", "exact", "on", ["exact", "miss"]),
        ("on", "off", "on", "on", ["bypass", "bypass"]),
        ("on", "on", "off", "on", ["bypass", "bypass"]),
        ("off", "on", "on", "on", ["exact", "semantic"]),
        ("opt-in", None, None, None, ["bypass", "bypass"]),
        ("opt-in", None, None, "on", ["exact", "semantic"]),
        ("off", None, None, "on", ["bypass", "bypass"]),
    ],
)
async def test_the_narrowest_holds(
    server: Mode, key: Mode | None, model: Mode | None, requested: Mode | None, outcomes: list[str]
) -> None:
    config = CacheConfig(mode=server, store="memory", policy="threshold", lookup_budget_ms=10_000)
    cache = AnswerCache(config, embed=BagOfWords(), store=MemoryStore(), registry=Registry())
    hashed = f"sha256:{hashlib.sha256(b'sk').hexdigest()}"
    service = Service(GatewayConfig(keys=(KeyConfig(hashed, "web", cache=key),)), cache=cache)
    service.client.set_state("parrot", cache=model)
    fields = {} if requested is None else {"carpool": {"cache": requested}}
    async with cache, service.http(authorization="Bearer sk") as http:
        found = []
        for question in (STORED, STORED, SAME):
            reply = await http.post(CHAT_PATH, json=chat(question, **fields))
            found.append(reply.headers["x-carpool-cache"])
            await cache.flush()
    assert found[1:] == outcomes
