"""What docs/security.md promises and no other test here proves."""

import asyncio
import hashlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.gateway.config import GatewayConfig, KeyConfig
from carpool.telemetry import Registry
from tests.unit.cache.bag_of_words import BagOfWords
from tests.unit.gateway import real_worker
from tests.unit.gateway.serving import CHAT_PATH, Service, chat
from tests.unit.worker.echo import until


async def test_a_body_that_does_not_end_is_given_up() -> None:
    service = Service(GatewayConfig(request_timeout_s=0.05))

    async def never_ending() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with service.http() as http:
        reply = await http.post(CHAT_PATH, content=never_ending())
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 200
    assert len(service.client.generates) == 1


async def test_a_client_that_asks_and_does_not_read_holds_its_place_no_longer_than_any(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "carpool.access")
    service = Service(GatewayConfig(max_concurrent_requests=1), cached=True)
    long = chat("long " * 2000)
    async with service.listening() as url, httpx2.AsyncClient(base_url=url) as http:
        outcomes = [(await http.post(CHAT_PATH, json=long)).headers["x-carpool-cache"] for _ in range(3)]
        assert outcomes == ["miss", "exact", "exact"]
        deaf = socket.create_connection(("127.0.0.1", http.base_url.port))
        deaf.setblocking(False)
        _reader, writer = await asyncio.open_connection(sock=deaf, limit=1)  # it takes no more than that
        writer.write(
            real_worker.http(CHAT_PATH, long, connection="keep-alive", x_request_timeout="0.2") * 1000
        )
        await until(lambda: "error=deadline_exceeded" in caplog.text)
        assert (await http.post(CHAT_PATH, json=long)).headers["x-carpool-cache"] == "exact"
        writer.transport.abort()


async def test_users_behind_one_key_share_nothing_where_that_is_set() -> None:
    digest = hashlib.sha256(b"sk-front").hexdigest()
    key = KeyConfig(f"sha256:{digest}", "front", cache_scope="user")
    service = Service(GatewayConfig(keys=(key,)), cached=True)
    async with service.http(authorization="Bearer sk-front") as http:
        outcomes = [
            (await http.post(CHAT_PATH, json=chat(**fields))).headers["x-carpool-cache"]
            for fields in ({"user": "ann"}, {"user": "ann"}, {"user": "bob"}, {}, {})
        ]
    assert outcomes == ["miss", "exact", "miss", "bypass", "bypass"]


async def test_the_key_is_in_no_reply() -> None:
    key = KeyConfig(f"sha256:{hashlib.sha256(b'sk-secret').hexdigest()}", "all", ("inference", "admin"))
    service = Service(GatewayConfig(keys=(key,)))
    async with service.http(authorization="Bearer sk-secret") as http:
        for path in ("/admin/settings", "/admin/models", "/v1/models", "/nothing", "/metrics"):
            reply = await http.get(path)
            told = reply.text + json.dumps(dict(reply.headers))
            assert "sk-secret" not in told
            assert key.hash.removeprefix("sha256:") not in told


def keyed(*names: str) -> GatewayConfig:
    return GatewayConfig(
        keys=tuple(
            KeyConfig(f"sha256:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}", name) for name in names
        )
    )


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"user": "red"}, 200),
        ({"metadata": {"tenant": "red"}}, 200),
        ({"tenant": "red"}, 400),
        ({"carpool": {"tenant": "red"}}, 400),
        ({"carpool": {"cache": "on", "scope": "key"}}, 400),
        ({"carpool": {"partition": "0" * 64}}, 400),
        ({"model": "red/parrot"}, 404),
        ({"model": "parrot\x00red"}, 404),
    ],
)
async def test_no_field_of_a_body_reaches_another_tenants_answers(
    fields: dict[str, Any], status: int
) -> None:
    service = Service(keyed("red", "blue"), cached=True)
    async with service.http(authorization="Bearer sk-red") as red:
        assert (await red.post(CHAT_PATH, json=chat())).headers["x-carpool-cache"] == "miss"
    async with service.http(authorization="Bearer sk-blue", tenant="red") as blue:
        reply = await blue.post(CHAT_PATH, json=chat(**fields))
        assert (reply.status_code, reply.headers.get("x-carpool-cache")) == (
            status,
            "miss" if status == 200 else None,
        )
    async with service.http(authorization="Bearer sk-red") as red:
        assert (await red.post(CHAT_PATH, json=chat())).headers["x-carpool-cache"] == "exact"


async def test_huge_keys_are_refused_or_kept_as_digests() -> None:
    service = Service(keyed("red"), cached=True)
    async with service.http() as http:
        reply = await http.post(
            CHAT_PATH, json=chat(), headers={"authorization": f"Bearer sk-{'x' * 1_000_000}"}
        )
        assert reply.status_code == 401
    assert service.cache is not None
    async with service.http(authorization="Bearer sk-red") as http:
        for fields in ({"user": "u" * 1_000_000}, {"carpool": {"cache": "x" * 1_000_000}}):
            reply = await http.post(CHAT_PATH, json=chat(**fields))
            assert reply.status_code == 400
            assert len(reply.content) < 1000
        huge = [{"role": "system", "content": "s" * 1_000_000}, {"role": "user", "content": "hello"}]
        outcomes = [
            (await http.post(CHAT_PATH, json=chat(messages=huge))).headers["x-carpool-cache"]
            for _ in range(2)
        ]
        assert outcomes == ["miss", "exact"]
        (held,) = service.cache.keeper.catalogue.keys()
        assert len(held) == 32
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 200


async def answers(service: Service) -> list[str]:
    """What the cache has for a new question, the same again, and another one."""
    async with service.http() as http:
        return [
            (await http.post(CHAT_PATH, json=chat(text))).headers["x-carpool-cache"]
            for text in ("How do bees fly?", "How do bees fly?", "Why do cats purr?")
        ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
async def test_poisoned_vectors_are_told_of_and_the_service_answers(
    bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def poisoned(texts: list[str]) -> Any:
        return np.full((len(texts), 8), bad, dtype=np.float32)

    config = CacheConfig(store="memory")
    cache = AnswerCache(config, embed=poisoned, store=MemoryStore(), registry=Registry())
    async with cache:
        assert await answers(Service(cache=cache)) == ["miss", "exact", "miss"]
        await cache.flush()
        assert cache.stats().vectors == 0
    (line,) = caplog.messages
    assert "no search by meaning while the embedder fails" in line
    assert "direction" in line


async def test_a_damaged_store_is_moved_aside_and_the_service_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.sqlite3"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 8192)
    cache = AnswerCache.open(
        CacheConfig(path=path), data_dir=tmp_path, embed=BagOfWords(), embedder_id="e", registry=Registry()
    )
    async with cache:
        assert await answers(Service(cache=cache)) == ["miss", "exact", "miss"]
    (line,) = caplog.messages
    assert "is damaged" in line
    assert str(path) in line
