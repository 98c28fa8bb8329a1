"""A served model judges what the cache serves by meaning: behind the requests, as far as it is good."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.gateway.served_judge import served_judge
from carpool.inference_engine import Priority
from carpool.telemetry import Registry
from carpool.worker.generation import Generation
from carpool.worker.places import Reservation
from carpool.worker.protocol import Generate
from tests.unit.cache.bag_of_words import BagOfWords
from tests.unit.gateway.local_client import LocalClient
from tests.unit.gateway.serving import CHAT_PATH, Service, chat
from tests.unit.worker.echo import until

GUITAR = "How can I learn to play the guitar at home?"
SAME = "how can I learn to play the guitar at home"
GOOD = (95, 100, 970, 1000)
A_COIN = (50, 100, 500, 1000)


class Opinionated(LocalClient):
    """Its chat model says `opinion` wherever it is asked whether two questions have one answer."""

    opinion = "yes"

    async def generate(
        self, request: Generate, *, stop: Sequence[str] = (), places: Reservation | None = None
    ) -> Generation:
        assert request.messages is not None
        if GUITAR in request.messages[-1]["content"] and SAME in request.messages[-1]["content"]:
            messages = [{"role": "user", "content": self.opinion}]
            request = msgspec.structs.replace(request, messages=messages)
        return await super().generate(request, stop=stop, places=places)


class Judged(Service):
    """A server that was asked the same question twice, in other words, with a judge that looks on."""

    def __init__(self, client: LocalClient, **settings: Any) -> None:
        self.cache_registry = Registry()
        config = CacheConfig(lookup_budget_ms=10_000, audit_rate=1.0, **settings)
        self.judged_cache = AnswerCache(
            config,
            embed=BagOfWords(),
            store=MemoryStore(),
            registry=self.cache_registry,
            judge=served_judge(config, client),
        )
        super().__init__(client=client, cache=self.judged_cache)

    async def ask(self) -> None:
        async with self.http() as http:
            for question, outcome in ((GUITAR, "miss"), (SAME, "semantic")):
                reply = await http.post(CHAT_PATH, json=chat(question))
                assert reply.headers["x-carpool-cache"] == outcome
                await self.judged_cache.flush()

    def verdicts(self) -> dict[tuple[str, ...], float]:
        """By judge and verdict."""
        (metric,) = [
            metric
            for metric in self.cache_registry.snapshot()
            if metric.name == "carpool_cache_verdicts_total"
        ]
        return {tuple(value for _, value in series.labels): series.value for series in metric.series}

    async def in_force(self) -> Any:
        async with self.http() as http:
            return (await http.get("/admin/cache")).json()["traffic"][0]["in_force"]


@pytest.mark.parametrize(("opinion", "wrong"), [("yes", 0), ("No, n", 1)])
async def test_a_chat_model_judges_at_idle_priority(opinion: str, wrong: int) -> None:
    client = Opinionated()
    client.opinion = opinion
    service = Judged(client, judge="parrot", judge_quality=GOOD)
    async with service.judged_cache:
        await service.ask()
        await until(lambda: sum(service.verdicts().values()) == 1)
        in_force = await service.in_force()
    assert service.verdicts() == {("parrot", "wrong" if wrong else "right"): 1}
    assert (in_force["standing"], in_force["audits"], in_force["wrong"]) == ("prior only", 1, wrong)
    asked, judging = client.generates
    assert asked.priority < Priority.IDLE
    assert (judging.priority, judging.model, judging.temperature) == (Priority.IDLE, "parrot", 0.0)
    assert judging.grammar is not None
    assert judging.grammar.text == "[Yy]es|[Nn]o"


async def test_a_judge_that_is_not_good_enough_proves_nothing() -> None:
    service = Judged(Opinionated(), judge="parrot", judge_quality=A_COIN)
    async with service.judged_cache:
        await service.ask()
        await until(lambda: sum(service.verdicts().values()) == 1)
        in_force = await service.in_force()
    assert (in_force["standing"], in_force["audits"]) == ("not audited", 0)
    assert in_force["wrong_of_hits"]["upper"] is None


@pytest.mark.parametrize(("score", "verdict"), [(0.5, "right"), (1.5, "wrong")])
async def test_a_reranker_judges_at_idle_priority(score: float, verdict: str) -> None:
    client = LocalClient(reranker=True)
    service = Judged(client, judge="judge", judge_quality=GOOD, judge_score=score)
    async with service.judged_cache:
        await service.ask()
        await until(lambda: sum(service.verdicts().values()) == 1)
    assert service.verdicts() == {("judge", verdict): 1}
    (scored,) = client.scored
    assert (scored.query, scored.documents, scored.priority) == (SAME, [GUITAR], Priority.IDLE)


async def test_a_judge_that_is_down_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    client = LocalClient(reranker=True)
    client.set_state("judge", phase="restarting")
    service = Judged(client, judge="judge", judge_quality=GOOD, judge_score=0.5)
    async with service.judged_cache:
        await service.ask()
        await until(lambda: service.verdicts() == {("judge", "none"): 1})
        assert (await service.in_force())["standing"] == "not audited"
    assert "cache: judge gives no verdict" in caplog.text


def test_without_a_name_there_is_no_judge() -> None:
    assert served_judge(CacheConfig(), LocalClient()) is None
