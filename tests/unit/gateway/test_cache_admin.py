"""The admin routes of the answer cache: what it holds, dropping it, taking it along, verdicts."""

import asyncio
import json
from typing import Any

import pytest

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.cache.store import Store
from carpool.telemetry import Registry
from tests.unit.cache.bag_of_words import BagOfWords, Clock
from tests.unit.gateway.serving import CHAT_PATH, RawCall, Service, chat
from tests.unit.worker.echo import until

GUITAR = "How can I learn to play the guitar at home?"
SAME = "how can I learn to play the guitar at home"
NEAR = "Can I learn to play the guitar at home?"
BEES = "How do bees make honey?"
ADMIN = "/admin/cache"


def serving(store: Store | None = None, **settings: Any) -> Service:
    config = CacheConfig(**{"lookup_budget_ms": 10_000, "audit_rate": 1.0, **settings})
    cache = AnswerCache(
        config, embed=BagOfWords(), store=store or MemoryStore(), registry=Registry(), clock=Clock()
    )
    return Service(cache=cache)


async def ask(service: Service, *questions: str, **fields: Any) -> list[str]:
    """The outcomes."""
    assert service.cache is not None
    outcomes = []
    async with service.http() as http:
        for question in questions:
            reply = await http.post(CHAT_PATH, json=chat(question, **fields))
            outcomes.append(reply.headers["x-carpool-cache"])
            await service.cache.flush()
    return outcomes


async def get(service: Service, path: str, **query: Any) -> Any:
    async with service.http() as http:
        reply = await http.get(f"{ADMIN}{path}", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def post(service: Service, path: str, body: Any, status: int = 200) -> Any:
    async with service.http() as http:
        reply = await http.post(f"{ADMIN}{path}", json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


async def test_the_status_tells_what_is_held_and_how_often_it_is_wrong() -> None:
    service = serving()
    assert await ask(service, GUITAR, GUITAR, SAME, BEES) == ["miss", "exact", "semantic", "miss"]
    status = await get(service, "")
    assert (status["entries"], status["vectors"], status["in_flight"]) == (2, 2, 0)
    assert status["bytes"] > 2 * 1024
    assert (status["mode"], status["store"], status["store_up"]) == ("on", "sqlite", True)
    assert (status["policy"], status["max_wrong"], status["threshold"]) == ("verified", 0.03, None)
    assert status["audits_pending"] == 1
    (traffic,) = status["traffic"]
    assert (traffic["tenant"], traffic["model"]) == ("local", "parrot")
    assert traffic["lookups"] == {"miss": 2, "exact": 1, "semantic": 1}
    in_force = traffic["in_force"]
    assert in_force["standing"] == "not audited"
    assert 0.5 < in_force["level"] < 1
    hits, everything = in_force["wrong_of_hits"], in_force["wrong_of_all"]
    assert 0 < hits["expected"] <= 0.03
    assert everything["expected"] == pytest.approx(hits["expected"] / 4)
    assert hits["lower"] is hits["upper"] is everything["upper"] is None


@pytest.mark.parametrize(
    ("settings", "policy", "threshold"),
    [({"policy": "threshold"}, "threshold", 0.8), ({"embedder": "another"}, "exact only", None)],
)
async def test_without_verification_nothing_is_claimed(
    settings: dict[str, Any], policy: str, threshold: float | None
) -> None:
    service = serving(**settings)
    await ask(service, GUITAR)
    status = await get(service, "")
    assert (status["policy"], status["threshold"]) == (policy, threshold)
    assert status["audits_pending"] is None
    assert [each["in_force"] for each in status["traffic"]] == [None]
    async with service.http() as http:
        refused = [
            await http.get(f"{ADMIN}/audits"),
            await http.post(f"{ADMIN}/audits/x", json={"wrong": True}),
        ]
    for reply in refused:
        assert reply.status_code == 404
        assert "Nothing is audited here" in reply.json()["error"]["message"]


async def test_entries_newest_first_within_the_limit() -> None:
    service = serving()
    for question in (GUITAR, BEES, "What is the longest river of Asia?"):
        await ask(service, question)
    await ask(service, BEES)
    listed = (await get(service, "/entries", limit=2))["data"]
    assert [each["question"] for each in listed] == ["What is the longest river of Asia?", BEES]
    bees = listed[1]
    assert (bees["answer"], bees["hits"], bees["tenant"], bees["model"]) == (BEES, 1, "local", "parrot")
    assert bees["completion_tokens"] == len(BEES)
    assert bees["cost_ms"] > 0
    assert bees["bytes"] > 1024
    (by_digest,) = (await get(service, "/entries", digest=bees["digest"]))["data"]
    (by_request,) = (await get(service, "/entries", request_id=bees["request_id"]))["data"]
    assert by_digest == by_request == bees
    assert (await get(service, "/entries", tenant="nobody"))["data"] == []
    assert len((await get(service, "/entries", model="parrot", tenant="local"))["data"]) == 3


async def test_a_question_that_is_never_matched_by_meaning_is_not_kept() -> None:
    service = serving()
    await ask(service, "What is the weather today?")
    (entry,) = (await get(service, "/entries"))["data"]
    assert (entry["question"], entry["answer"]) == (None, "What is the weather today?")


async def test_invalidate_by_condition_with_a_dry_run_first() -> None:
    service = serving()
    await ask(service, GUITAR, BEES)
    (bees,) = [e for e in (await get(service, "/entries"))["data"] if e["question"] == BEES]
    condition = {"digest": bees["digest"]}
    assert await post(service, "/invalidate", {**condition, "dry_run": True}) == {
        "entries": 1,
        "dry_run": True,
    }
    assert (await get(service, ""))["entries"] == 2
    assert await post(service, "/invalidate", condition) == {"entries": 1, "dry_run": False}
    assert await ask(service, BEES, GUITAR) == ["miss", "exact"]
    assert await post(service, "/invalidate", {"tenant": "nobody"}) == {"entries": 0, "dry_run": False}
    assert await post(service, "/invalidate", {"all": True}) == {"entries": 2, "dry_run": False}
    assert await ask(service, GUITAR) == ["miss"]


class ReadOnlyStore(MemoryStore):
    """Deletes nothing while it is `full`."""

    def __init__(self) -> None:
        self.full = True
        self.deleted: list[bytes] = []

    def delete(self, keys: Any) -> "asyncio.Future[None]":
        if not self.full:
            self.deleted += keys
            return super().delete(keys)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(OSError("disk full"))
        return future


async def test_a_store_that_cannot_be_written_is_told_and_asked_again() -> None:
    store = ReadOnlyStore()
    service = serving(store)
    await ask(service, GUITAR, BEES)
    error = (await post(service, "/invalidate", {"all": True}, status=503))["error"]
    assert "disk full" in error["message"]
    assert error["code"] == "unavailable"
    cache = service.cache
    assert cache is not None
    await until(lambda: not cache.keeper.store_up)
    status = await get(service, "")
    assert (status["entries"], status["store_up"]) == (0, False)
    await ask(service, BEES)
    store.full = False
    assert (await post(service, "/invalidate", {"tenant": "nobody"}))["entries"] == 0
    assert len(store.deleted) == 1  # the one that was not answered anew
    assert (await get(service, ""))["store_up"]
    assert await ask(service, BEES) == ["exact"]


async def test_the_export_has_every_selected_entry() -> None:
    service = serving()
    questions = [f"What is the meaning of the word number{i}?" for i in range(200)]
    await ask(service, *questions)
    async with service.http() as http:
        reply = await http.get(f"{ADMIN}/export")
        none = await http.get(f"{ADMIN}/export", params={"model": "other"})
    assert reply.headers["content-type"] == "application/x-ndjson"
    entries = [json.loads(line) for line in reply.text.splitlines()]
    assert sorted(each["answer"] for each in entries) == sorted(questions)
    assert (none.status_code, none.text) == (200, "")


async def test_an_export_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.gateway.cache_admin._EXPORT_BYTES", 1)
    service = serving()
    await ask(service, *(f"What is the meaning of the word number{i}?" for i in range(100)))
    call = RawCall(service.app, f"{ADMIN}/export", b"", method="GET")
    await call.received(b"number5")
    await call.leave()
    assert not call.complete


async def test_verdicts_of_people() -> None:
    service = serving()
    assert await ask(service, GUITAR, SAME, NEAR) == ["miss", "semantic", "miss"]
    hit, near = (await get(service, "/audits"))["data"]
    assert (hit["question"], hit["stored_question"], hit["stored_answer"]) == (SAME, GUITAR, GUITAR)
    assert (hit["served"], near["served"]) == (True, False)
    assert [each["id"] for each in (await get(service, "/audits", limit=1))["data"]] == [hit["id"]]
    assert (await get(service, "/audits", tenant="nobody"))["data"] == []
    judged = await post(service, f"/audits/{hit['id']}", {"wrong": True})
    assert judged == {"id": hit["id"], "wrong": True}
    assert (await post(service, f"/audits/{hit['id']}", {"wrong": True}, status=404))["error"]["code"] == (
        "not_found"
    )
    status = await get(service, "")
    assert status["audits_pending"] == 1
    in_force = status["traffic"][0]["in_force"]
    assert (in_force["standing"], in_force["audits"], in_force["wrong"]) == ("prior only", 1, 1)
    share = in_force["wrong_of_hits"]
    assert 0 <= share["lower"] < share["upper"] <= 1
    assert in_force["wrong_of_all"]["upper"] == pytest.approx(share["upper"] / 3)


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/entries?tenat=x", "tenat"),
        ("/entries?limit=0", "limit"),
        ("/entries?limit=1001", "limit"),
        ("/entries?limit=many", "limit"),
        ("/entries?limit=", "limit"),
        ("/entries?limit=1&limit=2", "limit"),
        ("/entries?older_than_s=-1", "older_than_s"),
        ("/entries?older_than_s=nan", "older_than_s"),
        ("/entries?digest=abc", "digest"),
        ("/entries?tenant=", "tenant"),
        ("/entries?tenant=%ff", None),
        ("/export?limit=5", "limit"),
        ("/audits?digest=5", "digest"),
    ],
)
async def test_bad_queries(path: str, param: str | None) -> None:
    async with serving().http() as http:
        reply = await http.get(ADMIN + path)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/invalidate", {}, None),
        ("/invalidate", {"dry_run": True}, None),
        ("/invalidate", {"all": True, "tenant": "x"}, "all"),
        ("/invalidate", {"all": "yes"}, "all"),
        ("/invalidate", {"tenants": ["x"]}, "tenants"),
        ("/invalidate", {"digest": "A" * 64}, "digest"),
        ("/invalidate", {"older_than_s": "1"}, "older_than_s"),
        ("/invalidate", [], None),
        ("/audits/x", {}, "wrong"),
        ("/audits/x", {"wrong": "no"}, "wrong"),
        ("/audits/x", {"wrong": True, "why": ""}, "why"),
    ],
)
async def test_bad_bodies(path: str, body: Any, param: str | None) -> None:
    service = serving()
    await ask(service, GUITAR)
    error = (await post(service, path, body, status=400))["error"]
    assert error["param"] == param
    assert (await get(service, ""))["entries"] == 1


async def test_without_a_cache_all_of_it_is_not_found() -> None:
    async with Service().http() as http:
        replies = [
            *[await http.get(ADMIN + path) for path in ("", "/entries", "/export", "/audits")],
            *[await http.post(ADMIN + path, json={}) for path in ("/invalidate", "/audits/x")],
        ]
    for reply in replies:
        assert reply.status_code == 404
        assert reply.json()["error"]["message"] == "This server has no answer cache."
