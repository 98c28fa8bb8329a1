"""The questions: the stream that is measured on, and streams made from the other pairs to calibrate on."""

import csv
import gzip
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

STREAM = "qqp_stream.jsonl.gz"
PAIRS = "qqp_pairs.tsv.gz"
OTHER_PAIRS = ("mqp.tsv.gz", "pawsx_en.tsv.gz")

STREAM_LENGTH = 10_000


@dataclass(frozen=True)
class Question:
    """Two questions count as the same if their clusters are equal."""

    text: str
    cluster: Hashable


@dataclass(frozen=True)
class Pair:
    """Two texts, labelled as the same or not."""

    first: str
    second: str
    same: bool


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


def streams(directory: Path, seed: int = 11) -> list[list[Question]]:
    """All questions of the pairs, in streams made as the stream was: whole groups of connected questions."""
    labelled = pairs(directory, PAIRS)
    same, connected = _Groups(), _Groups()
    for pair in labelled:
        for text in (pair.first, pair.second):
            for groups in (same, connected):
                groups.join(text, "\0" + " ".join(text.casefold().split()).rstrip("?.! "))
        connected.join(pair.first, pair.second)
        if pair.same:
            same.join(pair.first, pair.second)
    members: defaultdict[str, list[str]] = defaultdict(list)
    for text in sorted({text for pair in labelled for text in (pair.first, pair.second)}):
        members[connected.root(text)].append(text)
    order = sorted(members)
    dice = random.Random(seed)
    dice.shuffle(order)
    made: list[list[Question]] = [[]]
    for root in order:
        if len(made[-1]) >= STREAM_LENGTH:
            made.append([])
        made[-1] += [Question(text, same.root(text)) for text in members[root]]
    for stream in made:
        dice.shuffle(stream)
    return made


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pair_digest(first: str, second: str) -> str:
    """Names a pair in either order without its texts."""
    return hashlib.sha256("\n".join(sorted((first, second))).encode()).hexdigest()[:16]


def verdicts(path: Path) -> dict[str, bool]:
    """By pair digest: whether one answer serves both, as read by a person who saw the two texts alone."""
    return {key: bool(value) for key, value in json.loads(path.read_text()).items()} if path.exists() else {}


def texts_of(parts: Iterable[Iterable[Question]]) -> list[str]:
    """All texts of some streams."""
    return [question.text for part in parts for question in part]


class _Groups:
    """Disjoint sets (Tarjan 1975)."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, text: str) -> str:
        parents = self._parents
        parents.setdefault(text, text)
        while parents[text] != text:
            parents[text] = parents[parents[text]]
            text = parents[text]
        return text

    def join(self, first: str, second: str) -> None:
        self._parents[self.root(first)] = self.root(second)
