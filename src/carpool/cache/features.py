"""What a pair of questions shows of having one answer: the inputs of the calibrated probability.

The cosine averages over all that the questions share. The rest of these look at what they do not share: how
much of it there is, how rare its words are, whether a name is among it. They are symmetric in the two
questions, but for the margin, which is of the candidate among its rivals.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import TypeVar

from carpool.cache.difference import plain_words, words
from carpool.cache.vetoes.names import capitalised
from carpool.cache.vetoes.numbers import numbers

_ASKING = """
    what how why who where when which whose is are was were can could do does did should would will if has
"""
_QUESTION_WORDS = frozenset(_ASKING.split())
_Gram = TypeVar("_Gram")

NAMES = (
    "cosine",
    "distance",
    "margin",
    "rivals",
    "overlap",
    "bigram_overlap",
    "trigram_overlap",
    "common_subsequence",
    "length",
    "length_difference",
    "lesser_rarity",
    "greater_rarity",
    "lesser_rarest",
    "greater_rarest",
    "one_sided",
    "equal",
    "same_words",
    "question_word",
    "name_one_sided",
    "name_both_sided",
    "number",
    "cosine_overlap",
    "overlap_length",
    "added_rarity",
)


_NEAR = 0.05
"""Cosines that differ by less are about equal."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored question that is near a new one."""

    text: str
    cosine: float
    margin: float
    """Its cosine less that of the next nearest stored question, or the floor of the search."""
    rivals: int
    """Stored questions that are about as near or nearer, itself included."""


def with_margins(nearest: Sequence[tuple[str, float]], floor: float) -> list[Candidate]:
    """The candidates of texts and their cosines, nearest first, all of them above the floor."""
    cosines = [cosine for _, cosine in nearest]
    return [
        Candidate(text, cosine, cosine - after, sum(other > cosine - _NEAR for other in cosines))
        for (text, cosine), after in zip(nearest, [*cosines, floor][1:], strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Turn:
    plain: tuple[str, ...]
    counts: Counter[str]
    bigrams: Counter[tuple[str, str]]
    trigrams: Counter[str]
    all_words: frozenset[str]
    names: frozenset[str]
    numbers: Counter[str]
    question_word: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two texts show of having one answer, wherever they were found."""

    overlap: float
    shortest: float
    one_sided: float
    greater_rarest: float
    rest: tuple[float, ...]
    """From `bigram_overlap` to `number`, in the order of `NAMES`."""


def compare(question: str, text: str, rarity: Mapping[str, float], rarest: float) -> Comparison:
    """`rarity`: -log of the share of questions with a word; `rarest`: for the rest."""
    a, b = _turn(question), _turn(text)
    mine, theirs, shared = a.counts - b.counts, b.counts - a.counts, a.counts & b.counts

    def weights(counts: Counter[str]) -> list[float]:
        return [rarity.get(word, rarest) for word in counts.elements()]

    lesser, greater = sorted((weights(mine), weights(theirs)), key=sum)
    common = sum(weights(shared))
    total = common + sum(lesser) + sum(greater)
    overlap = common / total if total else 1.0
    shortest, longest = sorted((len(a.plain), len(b.plain)))
    my_names, their_names = a.names - b.all_words, b.names - a.all_words
    equal = float(a.plain == b.plain)
    one_sided = float(bool(mine) != bool(theirs))
    rarest_words = sorted((max(lesser, default=0.0), max(greater, default=0.0)))
    rest = (
        _dice(a.bigrams, b.bigrams),
        _dice(a.trigrams, b.trigrams),
        _common_subsequence(a.plain, b.plain) / longest if longest else 1.0,
        float(shortest),
        float(longest - shortest),
        sum(lesser),
        sum(greater),
        *rarest_words,
        one_sided,
        equal,
        float(not mine and not theirs),
        float(a.question_word != b.question_word),
        float(bool(my_names) != bool(their_names)),
        float(bool(my_names) and bool(their_names)),
        float(a.numbers != b.numbers),
    )
    return Comparison(overlap, float(shortest), one_sided, rarest_words[1], rest)


def features(candidate: Candidate, texts: Comparison) -> Sequence[float]:
    """The values of `NAMES` for a candidate whose text was compared with the question."""
    return (
        candidate.cosine,
        log(1.001 - min(candidate.cosine, 1.0)),
        min(candidate.margin, 0.05),
        float(min(candidate.rivals, 6)),
        texts.overlap,
        *texts.rest,
        candidate.cosine * texts.overlap,
        texts.overlap * texts.shortest,
        texts.one_sided * texts.greater_rarest,
    )


@lru_cache(maxsize=4096)
def _turn(text: str) -> _Turn:
    plain, found = tuple(plain_words(text)), words(text)
    joined = f" {' '.join(found)} "
    return _Turn(
        plain,
        Counter(plain),
        Counter(zip(("", *plain), (*plain, ""), strict=True)),
        Counter(joined[i : i + 3] for i in range(len(joined) - 2)),
        frozenset(found),
        capitalised(text),
        numbers(text),
        next((word for word in found if word in _QUESTION_WORDS), None),
    )


def _dice(a: Counter[_Gram], b: Counter[_Gram]) -> float:
    """Dice coefficient of two multisets."""
    total = a.total() + b.total()
    return 2 * sum(min(a[each], b[each]) for each in a.keys() & b.keys()) / total if total else 1.0


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence of words, bit-parallel (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    everything = (1 << len(a)) - 1
    unmatched = everything
    for word in b:
        here = unmatched & places.get(word, 0)
        unmatched = ((unmatched + here) | (unmatched - here)) & everything
    return len(a) - unmatched.bit_count()
