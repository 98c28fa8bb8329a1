"""The numbers: for Prometheus, and for the live page."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from carpool.gateway.loop_lag import watch_loop_lag
from carpool.telemetry import SIZE_BUCKETS, Registry
from tests.unit.gateway.serving import CHAT_PATH, Service, chat
from tests.unit.worker.echo import until


async def test_the_page_has_this_processes_metrics_and_the_workers() -> None:
    service = Service(cached=True)
    service.client.registry.counter("carpool_generation_tokens_total", "Tokens.").add(7, model="parrot")
    async with service.http() as http:
        for _ in range(2):
            await http.post(CHAT_PATH, json=chat("hello", stream=True))
        await http.post(CHAT_PATH, content=b"{")
        await http.get("/nowhere/at/all")
        page = await http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'carpool_generation_tokens_total{device="cpu",model="parrot"} 7',
        'carpool_requests_total{method="POST",route="/v1/chat/completions",status="200"} 2',
        'carpool_requests_total{method="POST",route="/v1/chat/completions",status="400"} 1',
        'carpool_requests_total{method="GET",route="other",status="404"} 1',
        'carpool_request_seconds_count{route="/v1/chat/completions"} 3',
        'carpool_time_to_first_token_seconds_count{cache="miss",model="parrot"} 1',
        'carpool_time_to_first_token_seconds_count{cache="exact",model="parrot"} 1',
        'carpool_answers_total{cache="exact"} 1',
        'carpool_tokens_total{cache="miss",kind="completion",model="parrot"} 5',
        "carpool_requests_in_flight 1",
        "carpool_event_loop_lag_seconds 0",
    ):
        assert line in page.text.splitlines(), line


async def test_the_lag_gauge_sees_a_blocked_loop() -> None:
    registry = Registry()
    gauge, histogram = registry.gauge("lag", "").labelled({}), registry.histogram("delay", "")
    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(watch_loop_lag(gauge, histogram))

    def block() -> None:
        until_ = loop.time() + 0.1
        while loop.time() < until_:
            pass

    loop.call_later(0.02, block)
    await until(lambda: gauge.value > 0.04)
    watching.cancel()
    assert histogram.labelled({}).value > 0.04


async def test_the_dashboard_is_one_page_that_needs_nothing_from_elsewhere() -> None:
    async with Service().http() as http:
        for path in ("/dashboard", "/docs"):
            page = await http.get(path)
            assert page.headers["content-type"].startswith("text/html")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "http://" not in page.text.replace("http://www.w3.org/", "")
            assert "https://" not in page.text


async def read_frames(http: httpx2.AsyncClient, count: int) -> list[Any]:
    async with http.stream("GET", "/dashboard/feed") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        frames = []
        async for line in reply.aiter_lines():
            if line:
                frames.append(json.loads(line.removeprefix("data: ")))
            if len(frames) == count:
                break
        return frames


async def test_the_feed_sends_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.gateway.dashboard._INTERVAL_S", 0.01)
    service = Service(cached=True)
    workers = service.client.registry
    workers.histogram("carpool_step_batch_size", "", SIZE_BUCKETS).observe(3, model="parrot")
    workers.gauge("carpool_sequences_waiting", "").set(2, model="parrot")
    workers.gauge("carpool_encoder_inputs_waiting", "").set(5, model="vectors")
    async with service.listening() as url, httpx2.AsyncClient(base_url=url) as http:
        for _ in range(3):
            await http.post(CHAT_PATH, json=chat("hello"))
        await http.post("/v1/embeddings", json={"model": "vectors", "input": ["a", "b"]})
        later = 0.0
        async with asyncio.timeout(30):
            while later != 4:  # the history comes first
                frame = (await read_frames(http, 40))[-1]
                later = frame["requests"]
    assert frame["answers"] == {"miss": 1, "exact": 2}
    assert frame["embedding_inputs"] == 2
    assert frame["waiting"] == 7
    assert frame["step_batch_size"]["counts"] == [0, 0, 1, *[0] * 7]
    assert len(frame["step_batch_size"]["bounds"]) == 9
    assert 0 < frame["p50_ms"] <= frame["p95_ms"]
    assert frame["models"][0] == {"id": "parrot", "task": "generate", "phase": "ready", "percent": 100.0}


async def test_an_open_feed_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.gateway.dashboard._INTERVAL_S", 0.01)
    service = Service()
    async with (
        httpx2.AsyncClient() as http,
        service.listening() as url,
        http.stream("GET", f"{url}/dashboard/feed") as reply,
    ):
        lines = reply.aiter_lines()
        await anext(lines)
        service.app.state.drain.begin()
        async with asyncio.timeout(30):
            async for _ in lines:
                pass
