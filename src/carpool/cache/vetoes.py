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

_NON = re.compile(r"\b(non|un)[-\u2010\u2011](?=\w)", re.IGNORECASE)
_NEGATED = re.compile(r"(?:un|in|im|dis|non|ir|il)(\w{3,})")

_SYMBOL = re.compile(
    r"[+*/^%=<>#$&|~\u20ac\u00a3\u00a5\u00d7\u00f7\u2260\u2264\u2265\u221a]|(?<=[\d\s])[-\u2212](?=[\d\s])"
)
"""Operators and currencies; a hyphen is one between numbers or spaces, not within words."""

_ORDERLESS = frozenset(
    ("is", "are", "was", "were", "did", "can", "could", "will", "would", "should", "to", "into")
)
"""Words that say nothing about who does what to whom by their place, or stand for each other."""

_CAPITALS = re.compile(r"\b(?!I\b)[A-Z0-9]*[A-Z][A-Z0-9]*\b")
"""Acronyms and single capital letters, except the pronoun."""

_ANTONYMS = """
    win/lose won/lost winner/loser buy/sell bought/sold increase/decrease rise/fall gain/lose before/after
    open/close start/stop begin/end enable/disable import/export hot/cold warm/cool upload/download
    encrypt/decrypt encode/decode compress/decompress activate/deactivate add/remove add/subtract
    multiply/divide plus/minus push/pull send/receive accept/reject allow/forbid borrow/lend love/hate
    maximum/minimum max/min maximize/minimize highest/lowest high/low large/small big/small long/short
    tall/short fast/slow old/new old/young more/less more/fewer most/least many/few best/worst better/worse
    good/bad first/last early/late earlier/later ascending/descending left/right above/below up/down on/off
    inside/outside true/false positive/negative even/odd strong/weak rich/poor wet/dry full/empty
    advantage/disadvantage pro/con benefit/risk useful/useless harmful/harmless north/south east/west
    internal/external input/output
"""


def _forms(word: str) -> list[str]:
    """A word and what it may inflect to, real or not: `stop`, `stops`, `stopped`, `stoping`."""
    stems = (word, word + word[-1], word.removesuffix("e"))
    return [word] + [stem + suffix for stem in stems for suffix in ("s", "ed", "ing", "er", "est")]


_SIDES = [tuple(frozenset(_forms(word)) for word in pair.split("/")) for pair in _ANTONYMS.split()]


def vetoed(first: str, second: str) -> str | None:
    """The name of the veto that two questions meet, or None.

    In this order: `numbers`, `symbols`, `negation`, `antonyms`, `order`, `case`.
    """
    if _numbers(first) != _numbers(second):
        return "numbers"
    if _SYMBOL.findall(first) != _SYMBOL.findall(second):
        return "symbols"
    if _negations(first) != _negations(second) or _negated(first, second) or _negated(second, first):
        return "negation"
    if _opposite(first, second):
        return "antonyms"
    if _reordered(first, second):
        return "order"
    if plain_words(first) == plain_words(second) and _capitals(first) != _capitals(second):
        return "case"
    return None


def _numbers(text: str) -> Counter[str]:
    """The numbers of a text, however written: `1,000` is `1000`, `two` is `2`."""
    found = [re.sub(r",(?=\d{3}(?!\d))", "", number) for number in _NUMBER.findall(text)]
    return Counter(found + [_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS])


def _reordered(first: str, second: str) -> bool:
    """Whether two questions have the same words in another order: who chases whom, what converts to what."""
    a, b = ([word for word in plain_words(text) if word not in _ORDERLESS] for text in (first, second))
    return a != b and Counter(a) == Counter(b)


def _capitals(text: str) -> list[str]:
    """The words that only capitals tell from others: `US` from `us`, the variable `X` from `x`."""
    return _CAPITALS.findall(text.strip().removeprefix("A "))  # an article at the start is no name


def _negations(text: str) -> bool:
    return any(word in _NEGATORS or word.endswith("n't") for word in words(text))


def _negated(first: str, second: str) -> bool:
    """Whether the first text has the opposite, by prefix, of a word that only the second has."""
    a, b = (set(plain_words(_NON.sub(r"\1", text))) for text in (first, second))
    stems = {match[1] for match in map(_NEGATED.fullmatch, a - b) if match}
    return bool(stems & (b - a))


def _opposite(first: str, second: str) -> bool:
    """Whether one text has a word and the other its antonym; not where a text has both."""
    a, b = set(words(first)), set(words(second))
    sides = ({(bool(one & text), bool(other & text)) for text in (a, b)} for one, other in _SIDES)
    return {(True, False), (False, True)} in sides
