"""Questions with much the same words in other roles: who chases whom, what converts to what."""

import re
from collections import Counter
from collections.abc import Sequence

from carpool.cache.difference import plain_words

_ORDERLESS = frozenset(
    ("is", "are", "was", "were", "did", "can", "could", "will", "would", "should", "to", "into")
)
"""Words that say nothing about who does what to whom by their place, or stand for each other."""

_SYMMETRIC = frozenset(("and", "or", "vs", "versus"))
_OPEN_ENDS = frozenset(("of", "to", "into", "for", "by", "from", "with", "than", "against"))
"""Words that ask for what precedes them when a question ends with them: "Who is Luke the father of?"."""

_LED = re.compile(r"(\S+) (?:in)?to (\S+)")
_FROM = re.compile(r"\bfrom (\S+)")
_TO = re.compile(r"\b(?:in)?to (\S+)")
_COMPARED = re.compile(r"(?:^| )(?:is|are|was|were|can|will|did|that) (\S+)(?: \S+)* than (\S+)")


def other_direction(first: str, second: str) -> bool:
    """Whether two parts of a question have changed places, other than about an "and" or "or".

    Moved words alone are none of that: "best college for physics in India", "best physics college in India".
    """
    a, b = plain_words(first), plain_words(second)
    if _directions(a) & {(to, start) for start, to in _directions(b)}:
        return True
    a, b = (tuple(word for word in side if word not in _ORDERLESS) for side in (a, b))
    if a == b or Counter(a) != Counter(b):
        return False
    return (a[-1] in _OPEN_ENDS) != (b[-1] in _OPEN_ENDS) or _swapped(a, b)


def _directions(plain: Sequence[str]) -> set[tuple[str, str]]:
    """Pairs of words: where it begins and where it leads, or what is compared to what."""
    text = " ".join(plain)
    pairs = {match.groups() for pattern in (_LED, _COMPARED) for match in pattern.finditer(text)}
    pairs |= {(start[1], to[1]) for start in _FROM.finditer(text) for to in _TO.finditer(text)}
    return {(start, to) for start, to in pairs if start != to}


def _swapped(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether the words are `x y z` in one and `z y x` in the other between equal ends, and y is no "and"."""
    while a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    for first in range(1, len(a) - 1):
        for last in range(1, len(a) - first):
            middle = a[first : len(a) - last]
            if b == a[len(a) - last :] + middle + a[:first]:
                return not _SYMMETRIC & set(middle)
    return False
