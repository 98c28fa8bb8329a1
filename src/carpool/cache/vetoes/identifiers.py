"""Names and pieces of code, in which every character counts."""

import re

from carpool.cache.difference import plain_words, words

_CAPITALS = re.compile(r"\b[A-Z]+\b")
_HOMOGRAPHS = """
    act aids am are as at bit cat do gap gate go he hi how id in is it led lit ma mac may me no of on or pet
    pm ram sat set so to up us we who
"""
_WORDS_TOO = frozenset(_HOMOGRAPHS.split())
"""Acronyms that are words without their capitals. Single letters count as well, but for "a" and "I"."""

_IDENTIFIER = re.compile(
    r"""
    \w*_\w+ | \w+(?:\.\w+)*\(\) | \b[a-z]+[A-Z]\w* | \b(?:[\w-]+\.)+[a-z]\w* | (?<!\w)\.{0,2}(?:/[\w.-]+){2,}
    | (?<![\w-])--?[a-z][\w-]+ | \w+@\w+ | \b(?=\w*\d)[0-9a-f]{7,}\b
    """,
    re.VERBOSE,
)
"""snake_case, calls(), camelCase, dotted names, paths, addresses, --options, digests."""

_CODE = re.compile(
    r"```|[;{}]\s*$|[\]})]\s*[;{]|=>|->|==|!=|&&|\|\||</?\w+>|\b[a-z]\(|\w\[\w+\]", re.MULTILINE
)
"""What prose does not have."""


def other_case(first: str, second: str) -> bool:
    """Whether only capitals tell them apart: `US` from `us`, the variable `X` from `x`."""
    return plain_words(first) == plain_words(second) and _acronyms(first) != _acronyms(second)


def other_identifiers(first: str, second: str) -> bool:
    """Whether one has an identifier, a path or an address that the other has not, in whatever capitals."""
    return _unknown(first, second) or _unknown(second, first)


def other_code(first: str, second: str) -> bool:
    """Whether one has code in it and they are not equal word by word."""
    return bool(_CODE.search(first) or _CODE.search(second)) and words(first) != words(second)


def _acronyms(text: str) -> list[str]:
    found = _CAPITALS.findall(text)
    if text.isupper() and len(found) > 3:
        return []  # all of it is in capitals
    return [word for word in found if word.casefold() in _WORDS_TOO or (len(word) == 1 and word not in "AI")]


def _unknown(text: str, other: str) -> bool:
    other = other.casefold()
    return any(each.casefold() not in other for each in _IDENTIFIER.findall(text))
