"""How often the configured policy and fixed cosines hit, and are wrong, on an operator's labelled pairs."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carpool.cache.answer import Answer
from carpool.cache.calibration import Calibration
from carpool.cache.candidates import Vectors
from carpool.cache.config import CacheConfig
from carpool.cache.judge import Case
from carpool.cache.labelled import Pair, Question, compared, streams
from carpool.cache.memory import MemoryStore
from carpool.cache.query import chat_query
from carpool.cache.replay import neighbours, replay
from carpool.cache.semantic import Embed
from carpool.cache.service import AnswerCache
from carpool.telemetry import Registry

COSINES = (0.8, 0.85, 0.9, 0.95, 0.97)

_BUDGET_MS = 60_000.0
"""Nobody waits here: a search that takes long must not count as a miss."""

Hits = list[tuple[int, int]]
"""Questions with those whose answer they got, by index."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """What one way to choose did on the stream."""

    name: str
    hits: int
    wrong: int
    """Hits between questions that are not the same by the labels."""
    unlabelled: int
    """Hits between questions that no pair compares: nothing is known of them."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All contestants on one stream."""

    questions: int
    repeats: int
    """Questions that are the same as an earlier one: the hits of a cache that knows everything."""
    contestants: list[Contestant]


async def evaluate(
    config: CacheConfig,
    pairs: Sequence[Pair],
    vectors: Vectors,
    embed: Embed,
    calibration: Calibration | None = None,
) -> Evaluation:
    """Replay all questions of the pairs as one user's, in random order.

    `vectors` holds the questions; `embed` is asked for what differs between two of them, and what it raises
    is raised. `calibration`: in place of the configured one.
    """
    (stream,) = streams(pairs, length=2 * len(pairs) + 1)
    different = compared(pairs, stream)
    matrix = np.stack([vectors[question.text] for question in stream])
    hits = await _served(config, stream, vectors, embed, calibration)
    hits |= await asyncio.to_thread(_fixed, matrix)
    contestants = []
    for name, found in hits.items():
        clusters = [(stream[asked].cluster, stream[stored].cluster) for asked, stored in found]
        other = [frozenset(each) for each in clusters if each[0] != each[1]]
        wrong = sum(each in different for each in other)
        contestants.append(Contestant(name, len(found), wrong, len(other) - wrong))
    return Evaluation(len(stream), len(stream) - len({question.cluster for question in stream}), contestants)


async def replay_through(
    cache: AnswerCache, stream: Sequence[Question], judge: Callable[[Case], bool] | None = None
) -> Hits:
    """One user's questions, one after the other; each that is not a hit is stored.

    `judge`: whether the answer of a case is wrong. It is asked as a person would be, about every sampled case
    before the next question.
    """
    audits = cache.verification.audits
    hits = []
    for index, question in enumerate(stream):
        query = chat_query(
            cache.config,
            messages=[{"role": "user", "content": question.text}],
            tenant="evaluation",
            model="evaluation",
            revision="1",
            parameters={},
        )
        lookup = await cache.lookup(query)
        if lookup.answer is not None:
            hits.append((index, int(lookup.answer.text)))
        elif lookup.lead is not None:
            lookup.lead.complete(
                Answer(
                    text=str(index),
                    finish_reason="stop",
                    prompt_tokens=1,
                    completion_tokens=1,
                    request_id=str(index),
                    created=time.time(),
                )
            )
            await cache.flush()
        if judge is not None and audits is not None:
            for case in audits.pending():
                audits.judge(case.id, wrong=judge(case))
    return hits


async def _served(
    config: CacheConfig,
    stream: Sequence[Question],
    vectors: Vectors,
    embed: Embed,
    calibration: Calibration | None,
) -> dict[str, Hits]:
    failures: list[Exception] = []
    known = {question.text for question in stream}

    async def either(texts: list[str]) -> NDArray[np.float32]:
        if known.issuperset(texts):
            return np.stack([vectors[text] for text in texts])
        try:
            return await embed(texts)
        except Exception as error:
            failures.append(error)
            raise

    config = dataclasses.replace(
        config, mode="on", store="memory", judge=None, audit_rate=0.0, lookup_budget_ms=_BUDGET_MS
    )
    cache = AnswerCache(
        config, embed=either, store=MemoryStore(), registry=Registry(), calibration=calibration
    )
    async with cache:
        hits = await replay_through(cache, stream)
    if failures:
        raise failures[0]
    if config.policy == "threshold":
        return {f"threshold {config.threshold}": hits}
    bounded = cache.verification.acceptance is not None
    return {f"verified, max_wrong {config.max_wrong}" if bounded else "exact only": hits}


def _fixed(matrix: NDArray[np.float32]) -> dict[str, Hits]:
    """The nearest stored question above a cosine, and nothing else."""
    near = neighbours(matrix, min(COSINES))
    return {
        f"cosine {cosine:.2f}": replay(
            near,
            lambda _, there, cosine=cosine: there[0][0] if there[0][1] > cosine else None,  # type: ignore[misc]
            limit=1,
        )
        for cosine in COSINES
    }
