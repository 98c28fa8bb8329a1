"""Labelled pairs of questions, and streams made from them: what the cache is calibrated and evaluated on."""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts, labelled: whether one answer serves both."""

    first: str
    second: str
    same: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Two questions count as the same if their clusters are equal."""

    text: str
    cluster: Hashable


def streams(pairs: Sequence[Pair], length: int, seed: int = 11) -> list[list[Question]]:
    """All questions of the pairs, each text once, in random order, in streams of `length` or a little more.

    Questions that pairs connect are in one stream. They are of one cluster where pairs say "same", followed
    transitively, and where they differ only in case, spaces and the punctuation at the end.
    """
    same, connected = _Groups(), _Groups()
    for pair in pairs:
        for text in (pair.first, pair.second):
            for groups in (same, connected):
                groups.join(text, "\0" + " ".join(text.casefold().split()).rstrip("?.! "))
        connected.join(pair.first, pair.second)
        if pair.same:
            same.join(pair.first, pair.second)
    members: defaultdict[str, list[str]] = defaultdict(list)
    for text in sorted({text for pair in pairs for text in (pair.first, pair.second)}):
        members[connected.root(text)].append(text)
    order = sorted(members)
    dice = random.Random(seed)  # noqa: S311  # nothing secret
    dice.shuffle(order)
    made: list[list[Question]] = [[]]
    for root in order:
        if len(made[-1]) >= length:
            made.append([])
        made[-1] += [Question(text, same.root(text)) for text in members[root]]
    for stream in made:
        dice.shuffle(stream)
    return made


def compared(pairs: Sequence[Pair], stream: Sequence[Question]) -> set[frozenset[Hashable]]:
    """The pairs of clusters of which pairs say that they are not the same."""
    cluster = {question.text: question.cluster for question in stream}
    return {
        frozenset((cluster[pair.first], cluster[pair.second]))
        for pair in pairs
        if not pair.same and pair.first in cluster
    }


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
