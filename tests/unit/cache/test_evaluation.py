from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from carpool.cache.config import CacheConfig
from carpool.cache.evaluation import Evaluation, evaluate, replay_through
from carpool.cache.index import normalised
from carpool.cache.judge import Case
from carpool.cache.labelled import Pair, streams
from carpool.cache.memory import MemoryStore
from carpool.cache.recalibration import calibrate
from carpool.cache.service import AnswerCache
from carpool.errors import WorkerDied
from carpool.telemetry import Registry
from tests.unit.cache.bag_of_words import BagOfWords, embed_text
from tests.unit.cache.questions import labelled_pairs

PAIRS = [
    Pair("How do bees make honey in spring?", "How do the bees make honey in spring?", True),
    Pair("How do bees make honey in spring?", "How do wasps make honey in spring?", False),
    Pair("What is the capital of Peru?", "Who wrote the play Hamlet?", False),
]


async def study(pairs: list[Pair], embed: Any = None, calibration: Any = None, **settings: Any) -> Evaluation:
    texts = {text for pair in pairs for text in (pair.first, pair.second)}
    vectors = {text: normalised(embed_text(text)) for text in texts}
    return await evaluate(CacheConfig(**settings), pairs, vectors, embed or BagOfWords(), calibration)


async def test_hits_and_wrong_hits_of_the_policy_and_of_fixed_cosines() -> None:
    found = await study(PAIRS, policy="threshold", threshold=0.7)
    assert (found.questions, found.repeats) == (5, 1)
    policy, *fixed = found.contestants
    assert (policy.name, policy.hits, policy.wrong) == ("threshold 0.7", 1, 0)  # the rest is ruled out
    assert [each.name for each in fixed] == [f"cosine {c:.2f}" for c in (0.8, 0.85, 0.9, 0.95, 0.97)]
    assert (fixed[0].hits, fixed[0].unlabelled) == (2, 0)
    assert fixed[0].wrong > 0
    assert [(each.hits, each.wrong) for each in fixed[2:4]] == [(1, 0), (0, 0)]


async def test_hits_that_no_pair_compares_are_told_apart() -> None:
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa"
    pairs = [Pair(words, "one thing", False), Pair(f"{words} lambda", "another matter", False)]
    found = await study(pairs)
    assert [(each.hits, each.wrong, each.unlabelled) for each in found.contestants[1:3]] == [(1, 0, 1)] * 2


async def test_a_calibration_can_be_tried_before_it_is_used() -> None:
    train, test = labelled_pairs(200), labelled_pairs(60, seed=1)
    texts = {text for pair in train for text in (pair.first, pair.second)}
    calibration = calibrate(train, {text: normalised(embed_text(text)) for text in texts}, embedder="mine")
    (without, *_) = (await study(test, embedder="mine")).contestants
    assert (without.name, without.hits) == ("exact only", 0)
    found = await study(test, embedder="mine", calibration=calibration, max_wrong=0.1)
    policy, cosine, *_ = found.contestants
    assert policy.name == "verified, max_wrong 0.1"
    assert policy.hits > found.repeats / 2
    assert policy.wrong / policy.hits <= 0.1 < cosine.wrong / cosine.hits


async def test_a_judge_is_asked_about_every_sampled_case() -> None:
    train, test = labelled_pairs(200), labelled_pairs(60, seed=1)
    texts = {text for pair in train + test for text in (pair.first, pair.second)}
    vectors = {text: normalised(embed_text(text)) for text in texts}
    (stream,) = streams(test, length=1000)
    config = CacheConfig(embedder="mine", max_wrong=0.1, audit_rate=1.0, lookup_budget_ms=60_000)
    cases: list[Case] = []

    def judge(case: Case) -> bool:
        cases.append(case)
        return len(cases) % 2 == 0

    async with AnswerCache(
        config,
        embed=BagOfWords(),
        store=MemoryStore(),
        registry=Registry(),
        calibration=calibrate(train, vectors, embedder="mine"),
    ) as cache:
        hits = await replay_through(cache, stream, judge)
        assert cache.verification.acceptance is not None
        (found,) = cache.verification.acceptance.all().values()
    served = [case for case in cases if case.served]
    assert [(case.asked, case.stored) for case in served] == [
        (stream[asked].text, stream[stored].text) for asked, stored in hits
    ]
    assert len({case.id for case in cases}) == len(cases) > 0
    assert (found.audits, found.standing) == (len(served), "prior only")


async def test_an_embedder_that_fails_is_no_miss() -> None:
    async def dead(texts: list[str]) -> NDArray[np.float32]:
        raise WorkerDied("The worker ended.")

    with pytest.raises(WorkerDied):
        await study(PAIRS, dead, policy="threshold", threshold=0.7)
