"""Numbers, units, operators and currencies: each changes the answer of an otherwise equal question."""

import re
from collections import Counter

from carpool.cache.difference import words
from carpool.cache.vetoes.names import capitalised

_SMALL_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_SMALL_NUMBERS.split())}
del _NUMBER_WORDS["one"]  # mostly a pronoun
_NUMBER_WORDS |= {"thirty": "30", "forty": "40", "fifty": "50", "hundred": "100", "thousand": "1000"}
_NUMBER_WORDS |= {"million": "1000000", "billion": "1000000000"}

_ORDINALS = """
    zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
    fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
"""
_ORDINAL_WORDS = {word: str(value) for value, word in enumerate(_ORDINALS.split())}

_ROMANS = "i ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx"
_ROMAN_VALUES = {numeral: str(value) for value, numeral in enumerate(_ROMANS.split(), 1)}
_ROMAN_VALUES["one"] = "1"
_AMBIGUOUS = frozenset(("i", "one", "iv", "v", "vi", "ix", "x", "xi", "xx"))
"""Numerals that are something else as well, but in capitals after a name or one of these words."""
_PARTS = "act article chapter class grade level part phase section title type volume war"
_NUMBERED = frozenset(_PARTS.split())
_ROMAN = re.compile(r"(?:\b([A-Za-z]+) )?\b(WW|ww)?([IVX]+|[ivx]{2,}|[Oo]ne)\b(?!['\u2019])")

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")

_SYMBOL = re.compile(
    r"[+*^=<>$~\u20ac\u00a3\u00a5\u00d7\u00f7\u2260\u2264\u2265\u221a]|(?<=[\d\s])[-\u2212/%](?=[\d\s])|\b[A-Z]#"
)
"""Operators and currencies; a hyphen or slash is one between numbers or spaces, not within words."""

_UNITS = """
    mm millimeter millimeters millimetre millimetres / cm centimeter centimeters centimetre centimetres
    / m meter meters metre metres / km kms kilometer kilometers kilometre kilometres / inch inches
    / ft foot feet / yard yards / mile miles / mg milligram milligrams / g gram grams
    / kg kgs kilo kilos kilogram kilograms / ounce ounces oz / lb lbs pound pounds / ton tons tonne tonnes
    / ml milliliter milliliters millilitre millilitres / liter liters litre litres / gallon gallons
    / second seconds / minute minutes / hour hours / day days / week weeks / month months / year years
    / celsius / fahrenheit / kelvin / joule joules / calorie calories kcal / watt watts / kwh / volt volts
    / amp amps ampere amperes / mph / kmph / knot knots / acre acres / hectare hectares
    / bit bits / byte bytes / kb kilobyte kilobytes / mb megabyte megabytes / gb gigabyte gigabytes
    / tb terabyte terabytes / dollar dollars usd / euro euros eur / gbp / rupee rupees inr rs / yen jpy
    / yuan cny / hz hertz / mhz / ghz / percent / degree degrees / radian radians
"""
_UNIT_OF = {word: unit.split()[0] for unit in _UNITS.split("/") for word in unit.split()}
_IN = re.compile(r"\bin (?!second\b|minute\b|hour\b|day\b|week\b|month\b|year\b|bit\b|degree\b|m\b|g\b)(\w+)")
"""What may be a unit to answer in: not "in year one", "in bit 3"."""


def other_numbers(first: str, second: str) -> bool:
    """Whether the numbers differ, however written: `1,000` is `1000`, `two` is `2`, `II` is `2`.

    Ordinals in words count only against others, as `first` and `second` have more than one meaning.
    """
    a, b = numbers(first), numbers(second)
    mine, theirs = _ordinals(first), _ordinals(second)
    if a != b:
        return a + Counter(mine) != b + Counter(theirs)
    return bool(mine - theirs) and bool(theirs - mine)


def other_units(first: str, second: str) -> bool:
    """Whether each question has a unit of measure or currency that the other has not, or one asks "in km"."""
    a, b = _units(first), _units(second)
    return (bool(a - b) and bool(b - a)) or bool((_asked_for(first) - b) | (_asked_for(second) - a))


def other_symbols(first: str, second: str) -> bool:
    """Whether operators or currency signs differ."""
    return _SYMBOL.findall(first) != _SYMBOL.findall(second)


def numbers(text: str) -> Counter[str]:
    """The numbers of a text, in digits; no ordinals in words."""
    found = [re.sub(r",(?=\d{3}(?!\d))", "", number) for number in _NUMBER.findall(text)]
    found += [_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS]
    return Counter(found + _romans(text))


def _ordinals(text: str) -> set[str]:
    return {_ORDINAL_WORDS[word] for word in words(text) if word in _ORDINAL_WORDS}


def _romans(text: str) -> list[str]:
    """The Roman numerals, in digits: `World War II`, `WWI`, `Henry V`; and the `one` of `World War one`."""
    found = []
    for before, war, numeral in _ROMAN.findall(text):
        value = _ROMAN_VALUES.get(numeral.casefold())
        numbered = before.casefold() in _NUMBERED
        named = numeral.isupper() and before.casefold() in capitalised(text)
        if value and (war or numbered or named or numeral.casefold() not in _AMBIGUOUS):
            found.append(value)
    return found


def _units(text: str) -> set[str]:
    return {_UNIT_OF[word] for word in words(text) if word in _UNIT_OF}


def _asked_for(text: str) -> set[str]:
    """The unit that the answer is to be in: "in km", "in dollars"; "in a day" is none."""
    return {_UNIT_OF[unit] for unit in _IN.findall(text.casefold()) if unit in _UNIT_OF}
