"""The questions: the stream that is measured on, and streams made from the other pairs to calibrate on."""

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from carpool.cache import labelled
from carpool.cache.labelled import Pair, Question

STREAM = "qqp_stream.jsonl.gz"
PAIRS = "qqp_pairs.tsv.gz"
OTHER_PAIRS = ("mqp.tsv.gz", "pawsx_en.tsv.gz")

STREAM_LENGTH = 10_000


def test_stream(directory: Path) -> list[Question]:
    """The stream, in its order."""
    with gzip.open(directory / STREAM, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Question(row["text"], row["cluster"]) for row in rows]


def pairs(directory: Path, name: str) -> list[Pair]:
    """The pairs of one file."""
    with gzip.open(directory / name, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [Pair(first, second, label == "1") for _, first, second, label in rows]


def streams(directory: Path) -> list[list[Question]]:
    """All questions of the pairs, in streams made as the stream was: whole groups of connected questions."""
    return labelled.streams(pairs(directory, PAIRS), STREAM_LENGTH)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pair_digest(first: str, second: str) -> str:
    """Names a pair in either order without its texts."""
    return hashlib.sha256("\n".join(sorted((first, second))).encode()).hexdigest()[:16]


def verdicts(path: Path) -> dict[str, bool]:
    """By pair digest: whether one answer serves both, as a language model judged from the texts alone."""
    return {key: bool(value) for key, value in json.loads(path.read_text()).items()} if path.exists() else {}


def texts_of(parts: Iterable[Iterable[Question]]) -> list[str]:
    """All texts of some streams."""
    return [question.text for part in parts for question in part]
