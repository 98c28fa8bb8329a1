"""Questions of which one denies what the other says."""

import re

from carpool.cache.difference import plain_words, words

_NEGATORS = frozenset(
    ("not", "no", "never", "none", "nothing", "nobody", "nowhere", "neither", "nor", "cannot", "without")
)

_NON = re.compile(r"\b(non|un)[-\u2010\u2011](?=\w)", re.IGNORECASE)
_NEGATED = re.compile(r"(?:un|in|im|dis|non|ir|il|de|mis)(\w{2,})")
_INFLECTED = re.compile(r"(?:ies|ied|ying|ing|ed|es|s|e|y|ie)$")
"""What a verb ends with in one form and not in another."""


def other_polarity(first: str, second: str) -> bool:
    """Whether one question has a negation, as a word or a prefix, where the other has none."""
    return _negations(first) != _negations(second) or _negated(first, second) or _negated(second, first)


def _negations(text: str) -> bool:
    return any(word in _NEGATORS or word.endswith("n't") for word in words(text))


def _negated(first: str, second: str) -> bool:
    """Whether the first text has the opposite, by prefix, of a word that only the second has."""
    a, b = (set(plain_words(_NON.sub(r"\1", text))) for text in (first, second))
    stems = {_stem(match[1]) for match in map(_NEGATED.fullmatch, a - b) if match}
    return bool(stems & {_stem(word) for word in b - a if len(word) > 2})


def _stem(word: str) -> str:
    """The same for the forms of a verb: `tie`, `tied` and `tying`, `stop` and `stopped`."""
    stem = _INFLECTED.sub("", word)
    return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem
