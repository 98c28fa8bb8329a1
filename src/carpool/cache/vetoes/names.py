"""Names: two questions about two people, places, companies or languages, near as their vectors are."""

import re
from difflib import SequenceMatcher
from functools import lru_cache

from carpool.cache.difference import words

_CAPITALISED = re.compile(
    r"(?<=[\w,;:)\"\u201d'\u2019/] )[(\"\u201c]?((?!I\b|I['\u2019])[A-Z][\w'\u2019&/-]*)"
)
"""Words with a capital that do not begin a sentence."""
_DOTTED = re.compile(r"\b([A-Z])\.([A-Z])\b\.?(?:([A-Z])\b\.?)?")
_ACRONYM = re.compile(r"\b[A-Z]{2,6}\b")
_FEW = 3
"""Words that all may have a capital before that tells nothing."""

_SMALL_WORDS = """
    a an the in on of for and or to is are am was were be my your this that what how why who when where which
    whose can could do does did will would should shall may must have has if they he she we you it
"""
_FUNCTION_WORDS = frozenset(_SMALL_WORDS.split())
_IN_NAMES = """
    mr mrs ms dr sir lord lady prof professor president vice pm prime minister king queen great inc ltd corp
    company group sons university college school institute government city state united rs inr usd
"""
_COMMON = frozenset(_IN_NAMES.split())
"""Words that have a capital in a name, and may be missing where the same is meant; currencies are units."""

_PLACES = """
    america american usa us states / britain british uk kingdom / england english / ireland irish
    / scotland scottish scot / france french / germany german / spain spanish / italy italian
    / portugal portuguese / greece greek
    / netherlands holland dutch / belgium belgian / switzerland swiss / austria austrian / poland polish
    / sweden swedish / norway norwegian / denmark danish / finland finnish / russia russian
    / ukraine ukrainian / turkey turkish / israel israeli / iran iranian / iraq iraqi / syria syrian
    / egypt egyptian / nigeria nigerian / niger / kenya kenyan / india indian / pakistan pakistani
    / bangladesh bangladeshi / nepal nepali nepalese / china chinese / japan japanese / korea korean
    / taiwan taiwanese / vietnam vietnamese / thailand thai / indonesia indonesian / malaysia malaysian
    / philippines filipino / singapore / australia australian / canada canadian / mexico mexican
    / brazil brazilian / argentina argentinian / chile chilean / cuba cuban / europe european
    / africa african / asia asian / london / paris / berlin / rome / madrid / moscow / delhi / mumbai
    / bangalore bengaluru / chennai / kolkata / hyderabad / pune / dubai / tokyo / beijing / sydney
    / california / texas / florida / chicago / boston / hindi / tamil / telugu / urdu / arabic / latin
    / mandarin / sanskrit / python / javascript js / java / ruby / kotlin / haskell / perl / php
    / facebook fb / google / amazon / microsoft / instagram / whatsapp / twitter / youtube / snapchat
    / netflix / tesla / ios / android / linux
"""
"""Names that many write without a capital, and what else stands for each."""
_NAME_OF = {word: name.split()[0] for name in _PLACES.split("/") for word in name.split()}
_NAME_OF |= {f"{word}s": name for word, name in _NAME_OF.items()}
_WORDS_TOO = frozenset(("us", "states", "kingdom"))
"""Names with a capital only."""

_ALIKE = 0.84
"""From this likeness on two words are one, inflected or misspelt, as Canada and Canadian."""
_ALIKE_CHARS = 5
"""Words shorter than that are no other's misspelling: NET is not NEET."""


def other_names(first: str, second: str) -> bool:
    """Whether each question has a name that the other has in no form."""
    return bool(_unknown(first, second)) and bool(_unknown(second, first))


@lru_cache(1024)
def capitalised(text: str) -> frozenset[str]:
    """The words, in lower case, that have a capital within a sentence; none if it is written like a title."""
    names = _CAPITALISED.findall(_undotted(text))
    found = [word.removesuffix("'s") for name in names for word in words(name)]
    small = _FUNCTION_WORDS.intersection(found)
    if len(small) > 1 or _FEW < len(found) >= len(words(text)) - 1:
        return frozenset()
    return frozenset(found) - small


@lru_cache(1024)
def _names(text: str) -> frozenset[str]:
    """Names in one form each."""
    found = capitalised(text)
    found |= (_NAME_OF.keys() & _all(text)) - (_WORDS_TOO - found)
    return frozenset(_NAME_OF.get(name, name) for name in found - _COMMON if len(name) > 1)


@lru_cache(1024)
def _unknown(text: str, other: str) -> frozenset[str]:
    """Names of a text that the other has not, not even as initials, inflected, misspelt or written apart."""
    theirs = words(_undotted(other))
    known = {_NAME_OF.get(word, word) for word in _all(other)} | _abbreviated(text, other)
    joined = "".join(theirs)
    return frozenset(
        name
        for name in _names(text) - known
        if not (len(name) >= _ALIKE_CHARS and name in joined)
        and not any(_alike(name, word) for word in known)
    )


def _abbreviated(text: str, other: str) -> set[str]:
    """The acronyms of a text that are initials of words in a row in the other, and such words of the text."""
    mine, theirs = (words(_undotted(each)) for each in (text, other))
    short, long = (set(_ACRONYM.findall(_undotted(each))) for each in (text, other))
    own = {word.casefold() for word in short if _spelled(word.casefold(), theirs)}
    return own | {word for acronym in long for word in _spelled(acronym.casefold(), mine)}


def _all(text: str) -> frozenset[str]:
    return frozenset(word.removesuffix("'s") for word in words(_undotted(text)))


def _undotted(text: str) -> str:
    """`U.S.` is `US`."""
    return _DOTTED.sub(lambda match: "".join(filter(None, match.groups())) + " ", text)


def _spelled(acronym: str, among: tuple[str, ...]) -> tuple[str, ...]:
    """The words in a row whose initials an acronym is, if any."""
    at = "".join(each[0] for each in among).find(acronym)
    return among[at : at + len(acronym)] if at >= 0 else ()


def _alike(a: str, b: str) -> bool:
    if a in _NAME_OF and b in _NAME_OF:
        return False
    if min(len(a), len(b)) < _ALIKE_CHARS:
        return a.removesuffix("s") == b.removesuffix("s")
    return SequenceMatcher(None, a, b).ratio() > _ALIKE
