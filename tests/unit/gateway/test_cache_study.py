"""Evaluation and calibration of the answer cache over HTTP."""

import json
from typing import Any

import msgspec
import pytest

from carpool.cache.calibration import Calibration
from carpool.cache.config import CacheConfig
from carpool.cache.labelled import Pair
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.errors import WorkerDied
from carpool.inference_engine import Priority
from carpool.telemetry import Registry
from tests.unit.cache.bag_of_words import BagOfWords
from tests.unit.cache.questions import labelled_pairs
from tests.unit.gateway.serving import RawCall, Service
from tests.unit.gateway.words_client import WordsClient
from tests.unit.worker.echo import until

EVAL, CALIBRATE = "/admin/cache/eval", "/admin/cache/calibrate"


def serving(**settings: Any) -> Service:
    config = CacheConfig(**{"embedder": "vectors", **settings})
    cache = AnswerCache(config, embed=BagOfWords(), store=MemoryStore(), registry=Registry())
    return Service(client=WordsClient(), cache=cache)


def body(pairs: list[Pair], **fields: Any) -> dict[str, Any]:
    return {"pairs": msgspec.to_builtins(pairs), **fields}


async def post(service: Service, path: str, fields: dict[str, Any], status: int = 200) -> Any:
    async with service.http() as http:
        reply = await http.post(path, json=fields)
    assert reply.status_code == status, reply.text
    return reply.json()


async def test_calibrate_then_evaluate_on_other_pairs() -> None:
    service = serving()
    calibration = await post(service, CALIBRATE, body(labelled_pairs(200)))
    assert Calibration.decode(json.dumps(calibration).encode()).embedder == "vectors"
    embeds = service.client.embeds
    assert sum(len(call.inputs) for call in embeds) == 600
    assert {call.priority for call in embeds} == {Priority.IDLE}
    test = labelled_pairs(60, seed=1)
    found = await post(service, EVAL, body(test, calibration=calibration, max_wrong=0.1))
    assert (found["questions"], found["repeats"]) == (180, 60)
    policy, cosine, *_ = found["contestants"]
    assert policy["name"] == "verified, max_wrong 0.1"
    assert policy["hits"] > 30
    assert policy["hit_rate"]["value"] == policy["hits"] / 180
    share = cosine["wrong_of_hits"]
    assert share["value"] == cosine["wrong"] / (cosine["hits"] - cosine["unlabelled"])
    assert 0 < share["lower"] < share["value"] < share["upper"] < 1
    assert cosine["wrong_of_all"]["value"] == cosine["wrong"] / (180 - cosine["unlabelled"])
    plain = await post(service, EVAL, body(test))
    assert plain["contestants"][0]["name"] == "exact only"
    assert plain["contestants"][0]["wrong_of_hits"] == {"value": None, "lower": 0, "upper": 1}
    assert plain["contestants"][1:] == found["contestants"][1:]
    status = (await service.http().get("/admin/cache")).json()
    assert (status["entries"], status["traffic"]) == (0, [])


SHIPPED = msgspec.to_builtins(Calibration.shipped("all-minilm-l6-v2"))
PAIR = {"first": "a b", "second": "b c", "same": True}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (EVAL, {}, "pairs"),
        (EVAL, {"pairs": []}, "pairs"),
        (EVAL, {"pairs": [{**PAIR, "same": "yes"}]}, "pairs[0].same"),
        (EVAL, {"pairs": [{**PAIR, "first": ""}]}, "pairs[0].first"),
        (EVAL, {"pairs": [PAIR], "max_wrong": 0}, "max_wrong"),
        (EVAL, {"pairs": [PAIR], "calibration": {}}, "calibration.version"),
        (EVAL, {"pairs": [PAIR], "calibration": {**SHIPPED, "version": 99}}, "calibration"),
        (EVAL, {"pairs": [PAIR], "calibration": 5}, "calibration"),
        (EVAL, {"pairs": [PAIR], "policy": "threshold"}, "policy"),
        (CALIBRATE, {}, "pairs"),
        (CALIBRATE, {"pairs": [PAIR]}, "pairs"),
        (CALIBRATE, {"pairs": [PAIR], "floor": 1}, "floor"),
        (CALIBRATE, {"pairs": [PAIR], "embedder": "parrot"}, "model"),
    ],
)
async def test_bad_bodies(path: str, fields: dict[str, Any], param: str) -> None:
    assert (await post(serving(), path, fields, status=400))["error"]["param"] == param


async def test_a_calibration_of_another_embedder_is_refused() -> None:
    fields = {"pairs": [PAIR], "calibration": SHIPPED}
    error = (await post(serving(), EVAL, fields, status=400))["error"]
    assert "all-minilm-l6-v2, not vectors" in error["message"]


async def test_an_embedder_that_is_not_served_or_fails() -> None:
    error = (await post(serving(embedder="other"), EVAL, {"pairs": [PAIR]}, status=404))["error"]
    assert error["code"] == "model_not_found"
    service = serving()
    service.client.refusal = WorkerDied("The worker ended.")
    for path in (EVAL, CALIBRATE):
        assert (await post(service, path, {"pairs": [PAIR]}, status=503))["error"]["code"] == "worker_died"


async def test_one_at_a_time_and_whoever_leaves_makes_room() -> None:
    service = serving()
    service.client.going.clear()
    call = RawCall(service.app, CALIBRATE, json.dumps({"pairs": [PAIR]}).encode())
    await until(lambda: bool(service.client.running))
    assert (await post(service, EVAL, {"pairs": [PAIR]}, status=503))["error"]["code"] == "overloaded"
    await call.leave()
    assert not service.client.running
    service.client.going.set()
    assert (await post(service, EVAL, {"pairs": [PAIR]}))["questions"] == 2


async def test_without_a_cache_there_is_nothing_to_study() -> None:
    for path in (EVAL, CALIBRATE):
        await post(Service(), path, {"pairs": [PAIR]}, status=404)
