"""What two questions do not share word by word.

Two prompts made from one template, or two questions about one passage, look alike to any embedder however
different their point is, because the embedding averages over everything they share. What tells them apart is
the rest, so that is compared. The rules that make equal wordings equal are for English.
"""

import re
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_POLITE = re.compile(r"^(?:(?:please|kindly|hi|hello|hey|can you|could you|would you|tell me|do you know) )+")
_CONTRACTED = re.compile(r"\b(what|who|where|how|when|that|it)(?:'s| are)\b")
_HOW_TO = re.compile(
    r"\bhow (?:can|could|do|does|should|would) (?:i|we|you|one|people|someone|somebody|anyone)\b"
)
_FILLERS = frozenset(
    ("a", "an", "the", "some", "please", "kindly", "really", "actually", "exactly", "do", "does", "my")
)
_TEXTS = 1024
"""Texts whose words are remembered: one lookup asks for those of the same few texts again and again."""
_SAME = {"which": "what", "in": "of", "at": "of"}


@lru_cache(_TEXTS)
def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, punctuation dropped, apostrophes straightened."""
    return tuple(word.replace("\u2019", "'") for word in _WORD.findall(text.casefold()))


@lru_cache(4096)
def difference(first: str, second: str, min_shared: int = 0) -> tuple[str, str] | None:
    """What is left of two turns without the words that they share at the start and at the end.

    None where the whole turns are the better comparison: where those are less than two thirds of the longer
    turn or less than `min_shared`. One side is empty where the other turn only adds something.
    """
    a, b = plain_words(first), plain_words(second)
    shortest, longest = sorted((len(a), len(b)))
    prefix = next((i for i in range(shortest) if a[i] != b[i]), shortest)
    rest = shortest - prefix
    suffix = next((i for i in range(rest) if a[-1 - i] != b[-1 - i]), rest)
    shared = prefix + suffix
    if 3 * shared <= 2 * longest or shared < min_shared:
        return None
    return " ".join(a[prefix : len(a) - suffix]), " ".join(b[prefix : len(b) - suffix])


@lru_cache(_TEXTS)
def plain_words(text: str) -> tuple[str, ...]:
    """The words that carry the meaning: "Please, how do I make a cake?" and "how to make cakes" are equal."""
    plain = _POLITE.sub("", " ".join(words(text)))
    plain = _HOW_TO.sub("how to", _CONTRACTED.sub(r"\1 is", plain))
    return tuple(_SAME.get(word, _singular(word)) for word in plain.split() if word not in _FILLERS)


def _singular(word: str) -> str:
    """Good enough to compare: the same for singular and plural of most words."""
    word = word.removesuffix("'s").removesuffix("'")
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "sui" else word
