"""A served model as the judge of the cache's audits. It is asked at idle priority: behind every request."""

from carpool.cache.config import CacheConfig
from carpool.cache.judge import Judge, JudgeQuality, ModelJudge, ScoreJudge
from carpool.inference_engine import Priority
from carpool.worker.client import WorkerClient
from carpool.worker.protocol import Generate, Grammar, Score

_VERDICT_TOKENS = 4
"""Enough for a yes or no."""
_VERDICT = Grammar("regex", "[Yy]es|[Nn]o", "cache.judge")
"""All that it can say, whatever the texts that it reads ask of it."""


def served_judge(config: CacheConfig, client: WorkerClient) -> Judge | None:
    """The judge that the settings name, if any: a chat model, or a reranker where `judge_score` is set."""
    if config.judge is None:
        return None
    model, quality = config.judge, JudgeQuality(*config.judge_quality)

    async def reply(prompt: str) -> str:
        generation = await client.generate(
            Generate(
                id=0,
                model=model,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=_VERDICT_TOKENS,
                temperature=0.0,
                grammar=_VERDICT,
                priority=Priority.IDLE,
            )
        )
        return "".join([delta.text async for delta in generation])

    async def score(asked: str, stored: str) -> float:
        request = Score(
            id=0, model=model, query=asked, documents=[stored], truncate=True, priority=Priority.IDLE
        )
        return float((await client.score(request)).scores[0])

    if config.judge_score is None:
        return ModelJudge(model, quality, reply)
    return ScoreJudge(model, quality, score, config.judge_score)
