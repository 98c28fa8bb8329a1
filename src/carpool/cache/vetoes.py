"""Reasons why two similar questions have different answers, whatever their cosine.

Each is a rule that is right nearly always when it speaks; most wrong hits are beyond such rules. English
words and Arabic digits only.
"""

import re
from collections import Counter

from carpool.cache.difference import plain_words, words

_SMALL_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_SMALL_NUMBERS.split())}
del _NUMBER_WORDS["one"]  # mostly a pronoun

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_NEGATORS = frozenset(
    ("not", "no", "never", "none", "nothing", "nobody", "nowhere", "neither", "nor", "cannot", "without")
)


_SYMBOL = re.compile(r"[+*/^%=<>#$\u20ac\u00a3&|~]|(?<=[\d\s])[-\u2212](?=[\d\s])")
"""Operators and currencies; a hyphen is one between numbers or spaces, not within words."""


def vetoed(first: str, second: str) -> str | None:
    """The name of the veto that two questions meet, or None: `numbers`, `symbols`, `negation` or `order`."""
    if _numbers(first) != _numbers(second):
        return "numbers"
    if Counter(_SYMBOL.findall(first)) != Counter(_SYMBOL.findall(second)):
        return "symbols"
    if _negations(first) != _negations(second):
        return "negation"
    if _reordered(first, second):
        return "order"
    return None


def _numbers(text: str) -> Counter[str]:
    """The numbers of a text, however written: `1,000` is `1000`, `two` is `2`."""
    found = [re.sub(r",(?=\d{3}(?!\d))", "", number) for number in _NUMBER.findall(text)]
    return Counter(found + [_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS])


def _reordered(first: str, second: str) -> bool:
    """Whether two questions have the same words in another order: who chases whom, what converts to what."""
    a, b = plain_words(first), plain_words(second)
    return a != b and Counter(a) == Counter(b)


def _negations(text: str) -> bool:
    return any(word in _NEGATORS or word.endswith("n't") for word in words(text))
