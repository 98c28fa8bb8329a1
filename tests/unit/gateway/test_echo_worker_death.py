"""What clients see when the worker dies or is broken: an echoing one, in this process.

`test_real_worker_death` kills a real process.
"""

import asyncio

import msgspec
import pytest
from fastapi import FastAPI

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.gateway.app import create_app
from carpool.gateway.config import GatewayConfig
from carpool.telemetry import Registry
from tests.unit.gateway.serving import RawCall, app_of, events
from tests.unit.worker.echo import CHAT, idle, settled, started, until

PATH = "/v1/completions"


def body(prompt: str, stream: str = "false") -> bytes:
    return f'{{"model": "echo", "prompt": "{prompt}", "stream": {stream}, "temperature": 0}}'.encode()


async def test_50_streams_end_with_one_retryable_error_each_and_the_cache_answers_meanwhile() -> None:
    registry = Registry()
    cache = AnswerCache(CacheConfig(mode="exact"), embed=None, store=MemoryStore(), registry=registry)  # type: ignore[arg-type]
    async with started(CHAT) as (client, lives):
        app = create_app(GatewayConfig(), client, cache, registry)
        lives.last.chat.finish_reason = "stop"  # a complete answer, which is kept
        known = RawCall(app, PATH, body("known"))
        await known.task
        lives.last.chat.going.clear()
        streams = [RawCall(app, PATH, body(f"stream {i}", "true")) for i in range(50)]
        await until(lambda: client.open_requests == 50 and all(call.status == 200 for call in streams))
        lives.loading.clear()
        lives.last.kill()
        await asyncio.gather(*(call.task for call in streams))
        for call in streams:
            errors = [event["error"] for event in events(call.body.decode()) if "error" in event]
            assert [error["code"] for error in errors] == ["worker_died"]
            assert b"[DONE]" not in call.body

        again = RawCall(app, PATH, body("known"))
        await again.task
        assert (again.status, again.body.count(b'"text":"known"')) == (200, 1)
        refused = RawCall(app, PATH, body("unknown"))
        await refused.task
        assert refused.status == 503

        lives.loading.set()
        await until(lambda: lives.live)
        await settled(client)
        served = RawCall(app, PATH, body("unknown"))
        await served.task
        assert served.status == 200
        await idle(client, lives)
        assert client.usage.open_in_all == 0


async def readiness(app: FastAPI) -> tuple[int, str]:
    call = RawCall(app, "/health/ready", b"", method="GET")
    await call.task
    return call.status, msgspec.json.decode(call.body)["status"]


async def test_a_server_with_a_broken_engine_is_not_ready_until_it_has_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("carpool.worker.watchdog.TICK_S", 0.001)
    monkeypatch.setattr("carpool.worker.session.HEARTBEAT_S", 0.001)
    async with started(CHAT) as (client, lives):
        app = app_of(client)
        assert await readiness(app) == (200, "ready")
        lives.loading.clear()
        lives.last.chat.healthy = False
        await until(lambda: client.resolve("echo").phase != "ready")
        assert await readiness(app) == (503, "loading")
        refused = RawCall(app, PATH, body("meanwhile"))
        await refused.task
        assert (refused.status, b'"worker_died"' in refused.body) == (503, True)
        lives.loading.set()
        await settled(client)
        assert await readiness(app) == (200, "ready")
