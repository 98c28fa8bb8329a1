"""The language of a question, as far as a few common words and the script tell it."""

import re

from carpool.cache.difference import words

_COMMON = {
    "en": "the is are what how of to and in for do does can i you my which who why when where a it on with",
    "de": "der die das ist sind was wie und ein eine ich nicht mit von zu den dem warum wer wo kann man auf",
    "fr": "le la les est sont que quel quelle comment et un une je pas de des du pour pourquoi qui dans avec",
    "es": "el la los las es son qu\u00e9 c\u00f3mo y un una yo no de del para por qui\u00e9n en con que como",
    "pt": "o os as \u00e9 s\u00e3o que qual como e um uma eu n\u00e3o de do da para por quem onde em com",
    "it": "il lo la gli le \u00e8 sono che come e un una io non di del della per perch\u00e9 chi dove con",
    "nl": "de het een is zijn wat hoe en ik niet van voor waarom wie waar kan met op in welke",
}
_COMMON_WORDS = {language: frozenset(text.split()) for language, text in _COMMON.items()}

_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")


def language(text: str) -> str | None:
    """Code of the language; `other` for a script that is not Latin, None where nothing tells."""
    letters = [character for character in text if character.isalpha()]
    if 2 * len(_LATIN.findall(text)) < len(letters):
        return "other"
    found = words(text)
    counts = {code: sum(word in common for word in found) for code, common in _COMMON_WORDS.items()}
    english = counts.pop("en")
    best = max(counts, key=counts.__getitem__)
    if counts[best] > max(1, 2 * english):
        return best
    return "en" if english else None


def other_language(first: str, second: str) -> bool:
    """Whether they are in two languages."""
    a, b = language(first), language(second)
    return a != b and None not in (a, b)
