"""Models of a running server, as operators load and unload them."""

from dataclasses import replace

import httpx2
from fastapi import FastAPI

from tests.unit.gateway.serving import app_of, chat
from tests.unit.worker.echo import CHAT, EMBED, settled, started, until


def http(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost:8000")


async def test_a_model_is_loaded_and_unloaded_over_http() -> None:
    chat_model = replace(CHAT, preload=False, max_concurrent_requests=7, aliases=("org/parrot",))
    async with started(chat_model, EMBED) as (client, _), http(app_of(client)) as server:
        assert (await server.get("/health/ready")).status_code == 200  # as it was set up
        refused = await server.post("/v1/chat/completions", json=chat(model="echo"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_unloaded")
        assert refused.headers["x-should-retry"] == "false"
        assert "POST /admin/models/echo/load" in refused.json()["error"]["message"]

        begun = await server.post("/admin/models/org/parrot/load")
        assert (begun.status_code, begun.json()["phase"]) == (202, "queued")
        await settled(client)
        model = (await server.get("/admin/models/echo")).json()
        assert (model["id"], model["phase"], model["max_concurrent_requests"]) == ("echo", "ready", 7)
        assert (model["reference"], model["open_requests"]) == ("pypi:echo-chat==1", 0)

        begun = await server.post("/admin/models/echo/unload")
        assert (begun.status_code, begun.json()["phase"]) == (202, "unloading")
        await until(lambda: client.models["echo"].phase == "unloaded")
        models = (await server.get("/admin/models")).json()
        assert [(m["id"], m["phase"]) for m in models["data"]] == [("echo", "unloaded"), ("embed", "ready")]
        for action in ("load", "unload"):
            missing = await server.post(f"/admin/models/nobody/{action}")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


async def test_no_reference_comes_in_over_http() -> None:
    async with started(EMBED) as (client, _), http(app_of(client)) as server:
        for name in ("hf:org/model", "/etc/passwd", "..%2F..%2Fmodel", "pypi:evil==1"):
            reply = await server.post(f"/admin/models/{name}/load", json={"reference": name})
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
        assert list(client.models) == ["embed"]


async def test_operators_work_is_not_counted_as_requests_to_models() -> None:
    async with started(EMBED) as (client, _), http(app_of(client)) as server:
        await server.post("/admin/models/embed/load")
        page = (await server.get("/metrics")).text
    assert 'route="/admin/models/{model_id:path}/load"' in page
