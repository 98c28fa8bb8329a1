"""What is compared: fixed cosines, and this cache as it is served, under both of its policies."""

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.cache_stream.data import pair_digest
from bench.cache_stream.vectors import Vectors, embedder
from carpool.cache.config import CacheConfig
from carpool.cache.evaluation import Hits, replay_through
from carpool.cache.judge import Case
from carpool.cache.labelled import Question
from carpool.cache.memory import MemoryStore
from carpool.cache.replay import neighbours, replay
from carpool.cache.service import AnswerCache
from carpool.telemetry import Registry

_DEFAULTS = {"gptcache": ("GPTCache 0.1.44", "0.8"), "redisvl": ("RedisVL 0.28", "0.1")}
"""What others are called, and their own default: of similarity the one, of cosine distance the other."""


def fixed(stream: Sequence[Question], vectors: Vectors, thresholds: Sequence[float]) -> dict[str, Hits]:
    """The nearest stored question above a cosine, and nothing else."""
    near = neighbours(vectors.matrix(question.text for question in stream), min(thresholds))
    return {
        f"cosine {threshold:.3f}": replay(
            near,
            lambda _, there, threshold=threshold: there[0][0] if there[0][1] > threshold else None,  # type: ignore[misc]
            limit=1,
        )
        for threshold in thresholds
    }


def foreign(module: str, python: Path, stream: Sequence[Question], vectors: Vectors) -> dict[str, Hits]:
    """Another cache with its default threshold, in a venv of its own: see `<module>_contestant.py`."""
    name, threshold = _DEFAULTS[module]
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, vectors.matrix(question.text for question in stream))
        file.flush()
        script = Path(__file__).with_name(f"{module}_contestant.py")
        ran = subprocess.run(
            [python, script, file.name, threshold], check=True, stdout=subprocess.PIPE, text=True
        )
    hits = json.loads(ran.stdout.splitlines()[-1])
    return {f"{name}, {threshold}": [(asked, stored) for asked, stored in hits]}


async def served(
    stream: Sequence[Question], vectors: Vectors, configs: dict[str, CacheConfig], read: Mapping[str, bool]
) -> dict[str, Hits]:
    """One user's questions through `AnswerCache`, one after the other.

    Where the settings ask for audits, the verdicts are the labels, or what was read (by digest of the pair)
    where that is more: as of a person who judges every case before the next question comes.
    """
    cluster = {question.text: question.cluster for question in stream}

    def wrong(case: Case) -> bool:
        if cluster[case.asked] == cluster[case.stored]:
            return False
        return not read.get(pair_digest(case.asked, case.stored), False)

    found = {}
    async with embedder() as client:
        for name, config in configs.items():
            began = time.perf_counter()
            registry = Registry()
            cache = AnswerCache(
                config,
                embed=lambda texts: vectors.embed(client, texts),
                store=MemoryStore(),
                registry=registry,
            )
            async with cache:
                found[name] = await replay_through(cache, stream, wrong)
                standing = cache.verification.acceptance
            seconds = time.perf_counter() - began
            vetoes = {
                dict(series.labels)["reason"]: int(series.value)
                for metric in registry.snapshot()
                if metric.name == "carpool_cache_vetoes_total"
                for series in metric.series
            }
            print(f"{name}: {len(found[name])} hits, {seconds:.0f} s, vetoes {vetoes}")
            if config.audit_rate and standing is not None:
                print(*standing.all().values())
    return found
