"""Candidates with their features, as the searches of replayed streams find them: what is fitted to."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from carpool.cache.difference import plain_words
from carpool.cache.exclusion import exclusion
from carpool.cache.features import NAMES, compare, features, with_margins
from carpool.cache.index import Vector
from carpool.cache.labelled import Question
from carpool.cache.policy import LONG_TEMPLATE
from carpool.cache.replay import neighbours, replay
from carpool.cache.semantic import CANDIDATES
from carpool.cache.soundness import matchable

Array = NDArray[np.float64]


class Vectors(Protocol):
    """Unit vectors, float32 [dimensions], by text."""

    def __getitem__(self, text: str) -> Vector: ...


@dataclass(frozen=True)
class Rarity:
    """How rare words are: -log of the share of questions that have them."""

    of_words: dict[str, float]
    rarest: float
    """Of all other words."""

    @classmethod
    def of(cls, texts: Collection[str], min_count: int) -> "Rarity":
        """`min_count`: questions that must have a word for its rarity to be told."""
        counts = Counter(word for text in texts for word in set(plain_words(text)))
        total = len(texts)
        told = {w: round(math.log(total / n), 2) for w, n in sorted(counts.items()) if n >= min_count}
        return cls(told, round(math.log(total / (min_count / 4)), 2))


@dataclass
class Rows:
    """Candidates, by the questions whose searches found them."""

    questions: list[int]
    values: Array
    """[rows, features]"""
    same: Array
    """By label."""
    pairs: list[tuple[str, str]]

    def only(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Those rows."""
        at = np.flatnonzero(chosen)
        return Rows(
            [self.questions[row] for row in at],
            self.values[at],
            self.same[at],
            [self.pairs[row] for row in at],
        )


def collect(
    stream: Sequence[Question],
    vectors: Vectors,
    rarity: Rarity,
    *,
    floor: float,
    reference: float,
    pause: Callable[[], None] = lambda: None,
) -> Rows:
    """What the searches of a replay find above the floor and no rule excludes.

    `reference`: cosine from which the replay serves, about as often as a policy will. `pause` is called now
    and then, and may raise to end it.
    """
    questions, values, same, pairs = [], [], [], []
    sound = [matchable(question.text, False, len(question.text)) for question in stream]

    def serve(index: int, near: list[tuple[int, float]]) -> int | None:
        pause()
        asked = stream[index]
        found = with_margins([(stream[each].text, cosine) for each, cosine in near], floor)
        for (each, _), candidate in zip(near, found, strict=True):
            if exclusion(asked.text, candidate.text, LONG_TEMPLATE) is not None:
                continue
            questions.append(index)
            values.append(
                features(candidate, compare(asked.text, candidate.text, rarity.of_words, rarity.rarest))
            )
            same.append(asked.cluster == stream[each].cluster)
            pairs.append((asked.text, candidate.text))
        return near[0][0] if near[0][1] >= reference else None

    vectors_of = np.stack([vectors[question.text] for question in stream])
    near = [
        [(each, cosine) for each, cosine in found if sound[index] and sound[each]]
        for index, found in enumerate(neighbours(vectors_of, floor))
    ]
    replay(near, serve, CANDIDATES)
    shaped = np.array(values).reshape(-1, len(NAMES))
    return Rows(questions, shaped, np.array(same, float), pairs)
