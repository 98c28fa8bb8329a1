"""Months, days of the week, seasons and holidays."""

import re

from carpool.cache.difference import words

_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_SEASONS = "spring summer autumn winter"
_DATES = {word: word for word in f"{_MONTHS} {_DAYS} {_SEASONS} christmas easter".split()}
_DATES |= {word[:3]: word for word in _MONTHS.split()} | {"sept": "september", "fall": "autumn"}
_WORDS_TOO = frozenset(("may", "march", "mar", "jan", "dec", "fall", "spring"))
"""Dates only where the words around them say so."""
_AS_DATE = re.compile(
    r"""
    (?:\b(?:in|on|of|by|until|till|since|before|during|next|last|this|early|late|mid|every)[ ](?:the[ ])?
       | \d(?:st|nd|rd|th)?[ ](?:of[ ])?) (may|march|mar|jan|dec|fall|spring)\b
    | \b(may|march|mar|jan|dec|fall|spring)[ ](?:the[ ])?\d
    """,
    re.VERBOSE,
)


def other_dates(first: str, second: str) -> bool:
    """Whether each question has a month, day of the week, season or holiday that the other has not."""
    a, b = _dates(first), _dates(second)
    return bool(a - b) and bool(b - a)


def _dates(text: str) -> set[str]:
    found = words(text)
    sure = {_DATES[word] for word in found if word in _DATES and word not in _WORDS_TOO}
    return sure | {_DATES[word] for match in _AS_DATE.findall(" ".join(found)) for word in match if word}
