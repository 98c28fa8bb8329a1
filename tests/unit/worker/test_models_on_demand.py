"""Models that are loaded and unloaded while others serve, within the memory of the device."""

import asyncio
from dataclasses import replace

import pytest

from carpool.errors import (
    InvalidRequest,
    ModelFailed,
    ModelLoading,
    ModelUnloaded,
    Overloaded,
    Unavailable,
)
from carpool.worker import protocol
from carpool.worker.client import WorkerClient
from carpool.worker.config import ModelConfig
from tests.unit.worker.echo import CHAT, EMBED, idle, read_all, request, settled, started, until

LATER = replace(EMBED, preload=False)


def sized(name: str, size: int, *, preload: bool = True) -> ModelConfig:
    return ModelConfig(
        reference="pypi:echo-embed==1", name=name, preload=preload, options={"task": "embed", "bytes": size}
    )


async def embed(client: WorkerClient, name: str = "embed") -> list[int]:
    return (await client.embed(protocol.Embed(0, name, ["abc"]))).tokens


def phases(client: WorkerClient) -> dict[str, str]:
    return {name: state.phase for name, state in client.models.items()}


async def test_a_model_is_loaded_and_unloaded_while_others_serve() -> None:
    async with started(CHAT, LATER) as (client, lives):
        with pytest.raises(ModelUnloaded, match=r"carpool models load embed.*POST /admin/models/embed/load"):
            await embed(client)
        assert client.load("embed").phase == "queued"
        assert client.load("embed").phase == "queued"  # it is on its way
        await settled(client)
        assert await embed(client) == [3]
        lives.last.chat.going.clear()
        reader = asyncio.create_task(read_all(await client.generate(request("hello"))))
        assert client.unload("parrot").phase == "unloading"
        with pytest.raises(Unavailable, match="being unloaded"):
            client.load("echo")
        with pytest.raises(ModelUnloaded):
            await client.generate(request("hello"))
        assert lives.last.host.engines["echo"].owes_step  # and is watched until then
        lives.last.chat.going.set()
        assert await reader == ["hello"]  # what ran was finished
        await settled(client)
        assert client.unload("echo").phase == "unloaded"
        client.load("echo")
        await settled(client)
        assert await read_all(await client.generate(request("again"))) == ["again"]
        await idle(client, lives)


async def test_a_loading_model_cannot_be_unloaded_and_a_failed_one_can_be_tried_again() -> None:
    bad = ModelConfig(reference="pypi:bad==1", options={"fail": "no such file"})
    async with started(LATER, bad) as (client, lives):
        assert phases(client) == {"embed": "unloaded", "bad": "failed"}
        lives.loading.clear()
        client.load("embed")
        with pytest.raises(InvalidRequest, match="is loading"):
            client.unload("embed")
        lives.loading.set()
        client.load("bad")
        await settled(client)
        assert phases(client) == {"embed": "ready", "bad": "failed"}
        assert client.unload("bad").phase == "unloaded"


async def test_requests_load_what_they_need_where_that_is_set() -> None:
    async with started(CHAT, LATER, load_on_demand=True, when_loading="wait") as (client, lives):
        assert await asyncio.gather(*(embed(client) for _ in range(3))) == [[3]] * 3
        await idle(client, lives)


async def test_a_request_to_a_loading_model_is_refused_or_waits_as_set() -> None:
    async with started(LATER, load_on_demand=True) as (client, lives):
        lives.loading.clear()
        with pytest.raises(ModelLoading) as refused:
            await embed(client)
        assert refused.value.retry_after_s
        lives.loading.set()
        await settled(client)
        assert await embed(client) == [3]
    async with started(LATER, load_on_demand=True, when_loading="wait") as (client, lives):
        lives.loading.clear()
        waiting = asyncio.create_task(embed(client))
        await until(lambda: client.models["embed"].phase == "building")
        lives.last.kill()  # nor does a death end the wait
        await until(lambda: lives.live)
        lives.loading.set()
        assert await waiting == [3]
        await idle(client, lives)


async def test_the_least_recently_used_idle_model_makes_room() -> None:
    models = (sized("a", 40), sized("b", 40), sized("c", 40, preload=False))
    async with started(*models, memory_budget_bytes=100) as (client, lives):
        await embed(client, "b")
        await embed(client, "a")
        client.load("c")
        await until(lambda: client.models["c"].phase == "ready")
        assert phases(client) == {"a": "ready", "b": "unloaded", "c": "ready"}
        lives.last.kill()
        await until(lambda: client.models["a"].phase == "restarting")
        await settled(client)
        assert phases(client) == {"a": "ready", "b": "unloaded", "c": "ready"}
        await idle(client, lives)


async def test_a_model_in_use_keeps_its_place_and_the_refusal_has_the_numbers() -> None:
    models = (replace(CHAT, options={"bytes": 80}), sized("b", 40, preload=False))
    settings = {"memory_budget_bytes": 100, "load_on_demand": True}
    async with started(*models, **settings, when_loading="wait") as (client, lives):
        lives.last.chat.going.clear()
        reader = asyncio.create_task(read_all(await client.generate(request("hello"))))
        with pytest.raises(Overloaded, match=r"worker.memory_budget_bytes\) are in use: echo") as refused:
            await embed(client, "b")
        assert refused.value.retry_after_s
        lives.last.chat.going.set()
        assert await reader == ["hello"]
        assert await embed(client, "b") == [3]
        assert phases(client) == {"echo": "unloaded", "b": "ready"}
        await idle(client, lives)


async def test_what_never_fits_is_refused_and_at_the_start_nobody_gives_way() -> None:
    models = (sized("first", 60), sized("second", 60), sized("third", 40), sized("huge", 2**30))
    async with started(*models, memory_budget_bytes=100) as (client, _):
        assert phases(client) == {
            "first": "ready",
            "second": "unloaded",
            "third": "ready",
            "huge": "failed",
        }
        with pytest.raises(
            ModelFailed, match=r"takes 1.00 GiB, more than .* 0.00 GiB \(worker.memory_budget"
        ):
            await embed(client, "huge")


async def test_a_model_has_a_limit_of_its_own() -> None:
    async with started(replace(EMBED, max_concurrent_requests=2), CHAT) as (client, lives):
        lives.last.encoder.going.clear()
        running = [asyncio.create_task(embed(client)) for _ in range(2)]
        await until(lambda: client.usage.open_requests("embed") == 2)
        with pytest.raises(Overloaded, match="max_concurrent_requests"):
            await embed(client)
        assert await read_all(await client.generate(request("others"))) == ["others"]
        lives.last.encoder.going.set()
        await asyncio.gather(*running)
        assert await embed(client) == [3]
        await idle(client, lives)


async def test_a_death_while_a_model_is_unloaded_leaves_it_unloaded() -> None:
    async with started(CHAT, EMBED) as (client, lives):
        lives.last.chat.going.clear()
        reader = asyncio.create_task(read_all(await client.generate(request("hello"))))
        client.unload("echo")
        lives.last.kill()
        await asyncio.wait({reader})
        await until(lambda: lives.live)
        await settled(client)
        assert phases(client) == {"echo": "unloaded", "embed": "ready"}
        assert client.usage.open_requests("echo") == 0
