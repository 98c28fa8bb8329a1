import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from carpool.cache.config import CacheConfig
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.errors import StartError
from carpool.telemetry import Registry
from tests.unit.cache.bag_of_words import BagOfWords, Clock, answer, ask

STORED = "How can I learn to play the guitar at home?"
SAME = "how can I learn to play the guitar at home"
NEAR = "Can I learn to play the guitar at home?"


def opened(verdicts: Path | None = None, **settings: Any) -> tuple[AnswerCache, Registry]:
    registry = Registry()
    config = CacheConfig(**{"lookup_budget_ms": 10_000, "audit_rate": 1.0, **settings})
    cache = AnswerCache(
        config,
        embed=BagOfWords(),
        store=MemoryStore(),
        registry=registry,
        verdicts=verdicts,
        clock=Clock(),
    )
    return cache, registry


async def learn(cache: AnswerCache, question: str, **fields: Any) -> None:
    lookup = await cache.lookup(ask(question, config=cache.config, **fields))
    assert lookup.lead is not None
    lookup.lead.complete(answer(question))
    await cache.flush()


async def outcome(cache: AnswerCache, question: str, **fields: Any) -> str:
    lookup = await cache.lookup(ask(question, config=cache.config, **fields))
    if lookup.lead is not None:
        lookup.lead.abandon()
    return lookup.outcome


def gauge(registry: Registry, name: str, **labels: str) -> float:
    (metric,) = [metric for metric in registry.snapshot() if metric.name == name]
    (value,) = [series.value for series in metric.series if labels.items() <= dict(series.labels).items()]
    return value


async def test_hits_and_near_misses_are_audited_and_only_hits_are_served() -> None:
    cache, registry = opened()
    async with cache:
        await learn(cache, STORED)
        assert await outcome(cache, SAME) == "semantic"
        assert await outcome(cache, NEAR) == "miss"
        assert await outcome(cache, STORED) == "exact"
        assert cache.verification.audits is not None
        cases = cache.verification.audits.pending()
        assert [(case.asked, case.stored, case.answer, case.served) for case in cases] == [
            (SAME, STORED, STORED, True),
            (NEAR, STORED, STORED, False),
        ]
        assert cases[0].probability > cases[1].probability
        assert 0.8 < gauge(registry, "carpool_cache_level", tenant="local", model="m") < cases[0].probability
        assert gauge(registry, "carpool_cache_wrong_share", bound="expected") <= 0.03
        assert gauge(registry, "carpool_cache_wrong_share", bound="upper") == 1.0


async def test_every_request_that_shares_a_judgement_may_be_audited() -> None:
    cache, _ = opened()
    async with cache:
        await learn(cache, STORED)
        assert cache.verification.audits is not None
        for question, outcomes in ((SAME, ["semantic"] * 5), (NEAR, ["joined"] * 4 + ["miss"])):
            found = await asyncio.gather(
                *(cache.lookup(ask(question, config=cache.config)) for _ in range(5))
            )
            assert sorted(lookup.outcome for lookup in found) == outcomes
            for lookup in found:
                if lookup.lead is not None:
                    lookup.lead.abandon()
            cases = cache.verification.audits.pending()[-5:]
            assert [(case.asked, case.served) for case in cases] == [(question, question == SAME)] * 5
            assert len({case.id for case in cases}) == 5


async def test_verdicts_on_wrong_hits_end_them_for_their_tenant_alone() -> None:
    cache, registry = opened()
    async with cache:
        for tenant in ("red", "blue"):
            await learn(cache, STORED, tenant=tenant)
        audits = cache.verification.audits
        assert audits is not None
        served = 0.0
        for _ in range(400):
            if await outcome(cache, SAME, tenant="red") != "semantic":
                break
            (case,) = audits.pending()
            served = case.probability
            audits.judge(case.id, wrong=True)
        assert await outcome(cache, SAME, tenant="red") == "miss"
        assert gauge(registry, "carpool_cache_level", tenant="red") > served
        assert await outcome(cache, STORED, tenant="red") == "exact"
        assert await outcome(cache, SAME, tenant="blue") == "semantic"


async def test_a_lower_bound_serves_less() -> None:
    levels = []
    for max_wrong in (0.1, 0.03, 0.01):
        cache, _ = opened(max_wrong=max_wrong)
        assert cache.verification.acceptance is not None
        levels.append(cache.verification.acceptance.acceptance("t", "m").level)
    assert levels == sorted(set(levels))


async def test_an_embedder_without_calibration_matches_nothing_by_meaning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        cache, _ = opened(embedder="another")
    assert caplog.messages == ["cache: no calibration for another: questions are matched by repetition only"]
    async with cache:
        await learn(cache, STORED)
        assert await outcome(cache, SAME) == "miss"
        assert await outcome(cache, STORED) == "exact"
    assert cache.verification.audits is None


async def test_the_threshold_is_not_audited() -> None:
    cache, _ = opened(policy="threshold")
    async with cache:
        await learn(cache, STORED)
        assert await outcome(cache, SAME) == "semantic"
    assert cache.verification.audits is None


def test_a_calibration_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cache\.calibration"):
        opened(calibration=tmp_path / "none.json")
