"""A key's own limits: 429 with the time to come back, for it alone."""

import asyncio
import hashlib
from typing import Any

import pytest

from carpool.errors import RateLimited, StartError
from carpool.gateway.config import GatewayConfig, KeyConfig
from carpool.gateway.key_limits import KeyLimits
from tests.unit.gateway.serving import CHAT_PATH, Service, chat
from tests.unit.worker.echo import until


def keyed(name: str = "web", **fields: Any) -> KeyConfig:
    return KeyConfig(hash=f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", name=name, **fields)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(limits: KeyLimits) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limits.enter()
    return caught.value


def test_a_minutes_requests_and_then_one_as_each_is_earned() -> None:
    clock = Clock()
    limits = KeyLimits(keyed(requests_per_minute=30), clock)
    for _ in range(30):
        limits.enter()
        limits.leave()
    assert refusal(limits).retry_after_s == pytest.approx(2)
    clock.now += 1.5
    assert refusal(limits).retry_after_s == pytest.approx(0.5), "a refusal costs nothing"
    clock.now += 0.5
    limits.enter()
    assert refusal(limits).retry_after_s == pytest.approx(2)
    clock.now += 100_000
    for _ in range(30):
        limits.enter()
    assert "30 requests a minute" in refusal(limits).message


def test_so_many_at_once() -> None:
    limits = KeyLimits(keyed(max_concurrent_requests=2, requests_per_minute=3), Clock())
    limits.enter()
    limits.enter()
    assert "2 requests at once" in refusal(limits).message
    limits.leave()
    limits.enter()
    limits.leave()
    assert "a minute" in refusal(limits).message


def test_without_limits_there_are_none() -> None:
    limits = KeyLimits(keyed(), Clock())
    for _ in range(1000):
        limits.enter()


@pytest.mark.parametrize("name", ["max_concurrent_requests", "requests_per_minute"])
def test_a_limit_below_one_stops_the_start(name: str) -> None:
    limit: dict[str, Any] = {name: 0}
    with pytest.raises(StartError, match=f"{name} of web must be at least 1, not 0"):
        keyed(**limit)


async def test_over_http_it_is_429_and_others_go_on() -> None:
    keys = (keyed("web", max_concurrent_requests=1), keyed("batch", requests_per_minute=1), keyed("free"))
    service = Service(GatewayConfig(keys=keys))
    service.client.going.clear()

    async def post(key: str, path: str = CHAT_PATH, body: Any = None) -> Any:
        async with service.http(authorization=f"Bearer {key}") as http:
            return await http.post(path, json=body or chat())

    inside = [asyncio.create_task(post(key)) for key in ("web", "batch", "free", "free")]
    await until(lambda: len(service.client.running) == 4)
    refused = [await post("web"), await post("batch", "/v1/embeddings", {"model": "vectors", "input": "a"})]
    for reply in refused:
        assert reply.status_code == 429
        assert reply.json()["error"]["type"] == "rate_limit_error"
        assert reply.json()["error"]["code"] == "rate_limit_exceeded"
        assert reply.headers["x-should-retry"] == "true"
    assert refused[0].headers["retry-after"] == "1"
    assert 50 <= int(refused[1].headers["retry-after"]) <= 60
    service.client.going.set()
    assert [reply.status_code for reply in await asyncio.gather(*inside)] == [200] * 4
    assert (await post("web")).status_code == 200
    async with service.http(authorization="Bearer batch") as http:
        assert (await http.get("/v1/models")).status_code == 200, "only requests to models count"
