"""Everything goes wrong around a real gateway and its worker process, and every request ends exactly once.

Clients leave at any moment, bodies are bad, the worker is killed, the cache's Redis is down, models are
unloaded. `CARPOOL_CHAOS_REQUESTS` sets the number of requests; `make chaos` runs 10,000.
"""

import asyncio
import gc
import logging
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carpool.cache.config import CacheConfig
from tests.unit.cache.redis_server import RedisServer
from tests.unit.gateway.real_worker import (
    EMBEDDER,
    SPARE,
    TALKER,
    RealService,
    http,
    key_of,
    tiny_models,
)
from tests.unit.gateway.serving import CHAT_PATH
from tests.unit.process_usage import resident_bytes

REQUESTS = int(os.environ.get("CARPOOL_CHAOS_REQUESTS", "1000"))
ROUND = 100
"""Requests between two looks at the counters."""
AT_ONCE = 40
KEYS = (
    key_of("red"),
    key_of("blue", max_concurrent_requests=12),
    key_of("admin", scopes=("inference", "admin", "metrics")),
)
MAX_BODY = 20_000
KINDS = {
    "stream": 20,
    "whole": 15,
    "repeat": 20,
    "choices": 8,
    "vectors": 12,
    "bad": 12,
    "hurry": 5,
    "cut off": 5,
    "admin": 3,
}
MOST_GROWTH = 1.2
"""Of a process's memory, from the first half of its rounds to the second. A leak of some kilobytes a request
is more in `make chaos`."""
FAILURES = {429, 503, 504}
"""What any request may end with here: its key's limit, a full or lost model, time that is up."""


class Chaos:
    """Makes requests up, sends them and checks how each ends."""

    def __init__(self, service: RealService, dice: random.Random) -> None:
        self._service = service
        self._dice = dice
        self._kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
        self.ended: Counter[str] = Counter()

    async def request(self) -> None:
        """One request from its first byte to its one end."""
        dice = self._dice
        kind, tenant = dice.choice(self._kinds), dice.choice(KEYS[:2]).name
        data = self._data(kind, tenant)
        leaves = kind == "cut off" or dice.random() < 0.3
        if leaves:
            await self._leave(data, reads=kind != "cut off" and dice.random() < 0.4)
            self.ended["left"] += 1
            return
        outcome = await self._service.send(data)
        assert outcome.error not in ("internal_error", "internal_server_error"), outcome.body
        if kind == "bad":
            assert outcome.status in {400, 404, 413, *FAILURES}, outcome.body
        else:
            assert outcome.status in {200, 202, *FAILURES}, (kind, outcome.body)
        self.ended[outcome.error or kind] += 1
        if "x-carpool-cache" in outcome.headers:
            self.ended[outcome.headers["x-carpool-cache"]] += 1
            # Both tenants ask the same questions; a shared answer names the request that it is of.
            assert outcome.headers.get("x-carpool-cache-match", tenant).startswith(tenant)

    async def _leave(self, data: bytes, reads: bool) -> None:
        """Send a part or all of it, read some of the reply or none, and cut the connection."""
        dice = self._dice
        async with self._service.connection() as (reader, writer):
            if dice.random() < 0.3:
                writer.write(data[: dice.randrange(len(data))])
            else:
                writer.write(data)
                if reads:
                    await reader.read(dice.choice([1, 300, 1000]))
            for _ in range(dice.choice([0, 1, 5, 30, 200])):
                await asyncio.sleep(0)

    def _data(self, kind: str, tenant: str) -> bytes:
        dice = self._dice
        headers = {"authorization": f"Bearer sk-{tenant}", "x-request-id": f"{tenant}-{dice.random()}"}
        model = dice.choice([TALKER, TALKER, SPARE])
        talk: dict[str, Any] = {"model": model, "max_tokens": dice.randint(1, 60), "ignore_eos": True}
        talk["messages"] = [{"role": "user", "content": f"Tell me of {dice.random()}"}]
        match kind:
            case "stream":
                talk |= {"stream": True, "stream_options": {"include_usage": False}}
            case "repeat":
                question = f"Is there room in car {dice.randrange(6)}?"
                talk = {
                    "model": TALKER,
                    "messages": [{"role": "user", "content": question}],
                    "temperature": 0,
                }
                talk |= {"structured_outputs": {"choice": ["yes", "no"]}, "stream": dice.random() < 0.5}
            case "choices":
                talk |= {"n": dice.randint(2, 4), "stop": ["e", "st"], "logprobs": True}
            case "vectors":
                texts = [f"the ferry {dice.random()}" for _ in range(dice.randint(1, 8))]
                return http("/v1/embeddings", {"model": EMBEDDER, "input": texts}, **headers)
            case "hurry":
                headers["x-request-timeout"] = f"{dice.uniform(0.001, 0.2):.4f}"
                talk |= {"max_tokens": 1500, "stream": dice.random() < 0.5}
            case "bad":
                return http(dice.choice([CHAT_PATH, "/v1/embeddings"]), self._bad(talk), **headers)
            case "cut off":
                headers["content-length"] = "10000"
            case "admin":
                headers["authorization"] = "Bearer sk-admin"
                return http(
                    dice.choice(["/metrics", "/admin/models", "/admin/cache"]), method="GET", **headers
                )
        return http(CHAT_PATH, talk, **headers)

    def _bad(self, talk: dict[str, Any]) -> Any:
        bodies: list[Any] = [
            b"",
            b"{not json",
            b"\xff\xfe",
            b"[" * 5000,
            b"x" * (MAX_BODY + 1),
            [talk],
            {**talk, "model": "nobody"},
            {**talk, "max_tokens": -1, "input": 3},
            {**talk, "messages": [{"role": "user"}], "input": []},
            {**talk, "max_tokens": 10**6, "input": {}},
        ]
        return self._dice.choice(bodies)

    async def disturb(self, number: int, redis: RedisServer, kills: bool) -> None:
        """What happens beside the requests of a round."""
        dice, service = self._dice, self._service
        for _ in range(dice.randint(0, 500)):
            await asyncio.sleep(0)
        await asyncio.to_thread(redis.stop if number % 2 else redis.start)
        action = "unload" if service.client.models[SPARE].phase == "ready" else "load"
        path, key = f"/admin/models/{SPARE}/{action}", "Bearer sk-admin"
        outcome = await service.send(http(path, authorization=key))
        assert outcome.status in (202, 400, 503), outcome.body
        if kills:
            for _ in range(dice.randint(0, 500)):
                await asyncio.sleep(0)
            service.kill_worker()
        elif outcome.status == 202:
            await service.up()
            assert service.client.models[SPARE].phase == {"unload": "unloaded", "load": "ready"}[action]
            self.ended[action] += 1


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


async def test_chaos_every_request_ends_exactly_once(
    tmp_path: Path,
    redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # workers look at every KV block when they are idle
    caplog.set_level(logging.ERROR, "carpool")  # captured lines would be memory, too
    rounds = max(REQUESTS // ROUND, 4)
    held: list[int] = []
    resident: list[int] = []
    of_last_worker: list[int] = []
    redis.stop()
    cache = CacheConfig(store="redis", url=redis.url, embedder=EMBEDDER)
    settings = {"keys": KEYS, "max_body_bytes": MAX_BODY, "max_concurrent_requests": AT_ONCE - 5}
    async with RealService(tiny_models(tmp_path), cache, tmp_path, **settings) as service:
        chaos = Chaos(service, random.Random(8))
        places = asyncio.Semaphore(AT_ONCE)

        async def request() -> None:
            async with places, asyncio.timeout(60):
                await chaos.request()

        for number in range(rounds):
            kills = number % 2 == 0 and number < rounds / 2  # the last worker lives through half of it all
            async with asyncio.TaskGroup() as group:
                group.create_task(chaos.disturb(number, redis, kills))
                for _ in range(ROUND):
                    group.create_task(request())
            await service.up()
            await service.quiet()
            gc.collect()
            held.append(len(gc.get_objects()))
            resident.append(resident_bytes())
            if number >= rounds / 2:
                of_last_worker.append(resident_bytes(service.processes[-1].pid))
        await service.worker_quiet()
        assert len(service.processes) == 1 + -(-rounds // 4)
    faults = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert all(fault.startswith("cache: answers are kept in memory only") for fault in faults), faults
    assert chaos.ended["left"] > REQUESTS / 10
    for kind in ("stream", "whole", "choices", "vectors", "exact", "load", "unload"):
        assert chaos.ended[kind] > 0, kind
    assert held[-1] < 1.05 * held[len(held) // 3], held
    for sizes in (resident, of_last_worker):
        middle = len(sizes) // 2
        assert max(sizes[middle:]) < MOST_GROWTH * max(sizes[:middle]), sizes
