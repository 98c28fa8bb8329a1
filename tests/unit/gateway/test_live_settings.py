"""Knobs that are turned while the server runs."""

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from tests.unit.gateway.serving import app_of, chat
from tests.unit.worker.echo import CHAT, EMBED, read_all, request, started


def http(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost:8000")


async def test_settings_are_shown_and_changed() -> None:
    async with started(CHAT, EMBED) as (client, lives), http(app_of(client)) as server:
        before = (await server.get("/admin/settings")).json()
        assert before == {
            "device": "cpu",
            "gate_policy": "priority",
            "load_on_demand": False,
            "when_loading": "refuse",
        }
        change = {"gate_policy": "edf", "when_loading": "wait", "max_batch_size": 7, "batch_wait_ms": 2.5}
        after = await server.patch("/admin/settings", json=change)
        assert after.status_code == 200
        assert after.json() == before | {"gate_policy": "edf", "when_loading": "wait"}
        assert (await server.get("/admin/settings")).json() == after.json()
        assert lives.last.host.gate.policy == "edf"
        models = (await server.get("/admin/models")).json()["data"]
        assert [(m["max_batch_size"], m["batch_wait_ms"]) for m in models] == [(7, 2.5)] * 2


async def test_a_models_knobs_are_shown_and_changed() -> None:
    async with started(CHAT) as (client, lives), http(app_of(client)) as server:
        change = {"max_batch_size": 9, "weight": 3.0, "max_concurrent_requests": 1}
        model = (await server.patch("/admin/models/parrot", json=change)).json()
        assert {name: model[name] for name in change} == change
        assert (model["id"], model["batch_wait_ms"]) == ("echo", 0.0)
        lives.last.chat.going.clear()
        running = await client.generate(request("hello"))
        refused = await server.post("/v1/chat/completions", json=chat(model="echo"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        model = (await server.patch("/admin/models/echo", json={"max_concurrent_requests": None})).json()
        assert (model["max_concurrent_requests"], model["open_requests"]) == (None, 1)
        lives.last.chat.going.set()
        await read_all(running)
        assert (await server.patch("/admin/models/none", json={})).status_code == 404


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("settings", {"gate_policy": "nice"}, "gate_policy"),
        ("settings", {"max_batch_size": 0}, "max_batch_size"),
        ("settings", {"max_batch_size": "8"}, "max_batch_size"),
        ("settings", {"batch_wait_ms": -1}, "batch_wait_ms"),
        ("settings", {"when_loading": "maybe"}, "when_loading"),
        ("settings", {"port": 1}, "port"),
        ("models/echo", {"weight": 0}, "weight"),
        ("models/echo", {"max_concurrent_requests": 0}, "max_concurrent_requests"),
        ("models/echo", {"reference": "hf:a/b"}, "reference"),
    ],
)
async def test_a_bad_value_is_a_400_that_names_the_field(path: str, change: Any, field: str) -> None:
    async with started(CHAT) as (client, lives), http(app_of(client)) as server:
        reply = await server.patch(f"/admin/{path}", json={"batch_wait_ms": 1.0} | change)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
        assert lives.last.chat.knobs.batch_wait_ms == 0.0  # nothing was changed
