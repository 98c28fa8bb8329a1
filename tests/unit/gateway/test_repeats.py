"""A body that comes again byte for byte: answered in short, and in no way otherwise."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from carpool.cache.selector import Selector
from carpool.gateway.config import GatewayConfig, KeyConfig
from carpool.gateway.key_file import KeyFile
from carpool.gateway.repeats import Repeats
from tests.unit.gateway.serving import CHAT_PATH, Service, chat

PREFIX = "x-carpool-cache"


async def post(service: Service, body: Any, path: str = CHAT_PATH, **headers: str) -> Any:
    async with service.http() as http:
        return await http.post(path, json=body, headers=headers)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each request so far was answered in short."""
    taken: list[bool] = []
    answer = Repeats.answer

    async def recorded(self: Repeats, *args: Any) -> bool:
        taken.append(await answer(self, *args))
        return taken[-1]

    monkeypatch.setattr(Repeats, "answer", recorded)
    return taken


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH, chat('say "created": 12, and {"id":"x"} ü')),
        ("/v1/completions", {"model": "parrot", "prompt": "hello"}),
    ],
)
@pytest.mark.parametrize("request_id", ["c", "created", "req-1", "x" * 128])
async def test_the_reply_is_the_same_but_for_id_and_time(
    short: list[bool], path: str, body: Any, request_id: str
) -> None:
    service = Service(cached=True)
    first, *exact = [await post(service, body, path, **{"x-request-id": request_id}) for _ in range(4)]
    assert short == [False, False, True, True]
    for reply in exact:
        assert reply.headers[PREFIX] == "exact"
        assert reply.headers[f"{PREFIX}-match"] == request_id
        assert reply.headers["content-type"] == "application/json"
        usage = {**first.json()["usage"], "prompt_tokens_details": {"cached_tokens": 0}}
        assert reply.json() == {**first.json(), "created": reply.json()["created"], "usage": usage}
        assert abs(reply.json()["created"] - first.json()["created"]) < 60
    other = await post(service, body, path, **{"x-request-id": "another"})
    assert other.json()["id"].endswith("-another")
    assert [*exact[0].headers] == [*other.headers]
    assert len(service.client.generates) == 1


async def test_metrics_count_it_like_any_hit(short: list[bool]) -> None:
    service = Service(cached=True)
    for _ in range(5):
        await post(service, chat("hello"))
    assert short.count(True) == 3

    def count(name: str) -> dict[str, float]:
        series = service.registry.counter(name, "").series
        return {dict(labels).get("cache") or dict(labels)["outcome"]: s.value for labels, s in series.items()}

    assert count("carpool_cache_lookups_total") == {"miss": 1, "exact": 4}
    assert count("carpool_answers_total") == {"miss": 1, "exact": 4}
    assert service.cache is not None
    (key,) = service.cache.keeper.catalogue.keys()
    kept = service.cache.keeper.catalogue.kept(key)
    assert kept is not None
    assert kept.hits == 4


async def test_what_is_no_longer_in_the_cache_is_no_repeat(short: list[bool]) -> None:
    service = Service(cached=True)
    assert service.cache is not None
    for _ in range(3):
        await post(service, chat("hello"))
    await service.cache.invalidate(Selector())
    assert (await post(service, chat("hello"))).headers[PREFIX] == "miss"
    assert short == [False, False, True, False]


async def test_what_is_dropped_from_the_cache_is_forgotten_at_once(
    short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Repeats] = []
    remember = Repeats.remember

    def recorded(self: Repeats, *args: Any) -> None:
        made.append(self)
        remember(self, *args)

    monkeypatch.setattr(Repeats, "remember", recorded)
    service = Service(cached=True)
    assert service.cache is not None
    for text in ("hello", "hello", "hello", "there", "there"):
        await post(service, chat(text))
    assert short.count(True) == 1
    repeats = made[0]
    assert len(repeats) == 2
    await service.cache.flush()
    await service.cache.invalidate(Selector())
    assert len(repeats) == 0
    await post(service, chat("hello"))
    assert not short[-1]


async def test_a_model_that_is_another_one_by_now(short: list[bool]) -> None:
    service = Service(cached=True)
    for _ in range(3):
        await post(service, chat("hello"))
    service.client.set_state("parrot", cache="off")
    assert (await post(service, chat("hello"))).headers[PREFIX] == "bypass"
    service.client.set_state("parrot", cache=None)
    for _ in range(2):
        await post(service, chat("hello"))
    assert short.pop()
    service.client.set_state("parrot", revision="pypi:parrot==2")
    assert (await post(service, chat("hello"))).headers[PREFIX] == "miss"


async def test_cache_control_is_heeded(short: list[bool]) -> None:
    service = Service(cached=True)
    for _ in range(3):
        await post(service, chat("hello"))
    reply = await post(service, chat("hello"), **{"cache-control": "no-cache"})
    assert reply.headers[PREFIX] == "miss"
    assert not short[-1]


def keyed(name: str, **fields: Any) -> KeyConfig:
    return KeyConfig(hash=f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", name=name, **fields)


async def test_each_key_has_its_own(short: list[bool]) -> None:
    keys = (
        keyed("red"),
        keyed("blue"),
        keyed("none", tenant="red", cache="off"),
        keyed("metrics", tenant="red", scopes=("metrics",)),
    )
    service = Service(GatewayConfig(keys=keys), cached=True)
    for _ in range(3):
        red = await post(service, chat("hello"), authorization="Bearer red")
    assert (red.headers[PREFIX], short[-1]) == ("exact", True)
    assert (await post(service, chat("hello"), authorization="Bearer blue")).headers[PREFIX] == "miss"
    assert (await post(service, chat("hello"), authorization="Bearer none")).headers[PREFIX] == "bypass"
    assert (await post(service, chat("hello"), authorization="Bearer metrics")).status_code == 403
    assert (await post(service, chat("hello"), authorization="Bearer stranger")).status_code == 401


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [({"cache": "off"}, "bypass"), ({"cache": "opt-in"}, "bypass"), ({"cache_scope": "user"}, "bypass")],
)
async def test_a_key_whose_settings_change(
    short: list[bool], tmp_path: Path, fields: dict[str, Any], outcome: str
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add(keyed("red"))
    service = Service(GatewayConfig(keys_file=file.path), cached=True)
    for _ in range(3):
        reply = await post(service, chat("hello"), authorization="Bearer red")
    assert (reply.headers[PREFIX], short[-1]) == ("exact", True)
    file.remove("red")
    file.add(keyed("red", **fields))
    reply = await post(service, chat("hello"), authorization="Bearer red")
    assert (reply.headers[PREFIX], short[-1]) == (outcome, False)


async def test_bounds_hold_as_ever(short: list[bool]) -> None:
    service = Service(cached=True, max_bytes=16 * 8000)  # two replies
    body = chat("hello")
    for _ in range(3):
        await post(service, body)
    for text in ("one", "two", "three"):
        for _ in range(2):
            await post(service, chat(text))
    await post(service, chat("three"))
    await post(service, body)  # crowded out
    assert short[-2:] == [True, False]
    long = chat("many words " * 4000)
    for _ in range(3):
        assert json.loads((await post(service, long)).text)["choices"]
    assert not short[-1]
