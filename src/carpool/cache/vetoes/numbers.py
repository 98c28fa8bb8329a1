"""Numbers, dates, units, operators and currencies: each changes the answer of an otherwise equal question."""

import re
from collections import Counter

from carpool.cache.difference import words

_SMALL_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_SMALL_NUMBERS.split())}
del _NUMBER_WORDS["one"]  # mostly a pronoun
_NUMBER_WORDS |= {"thirty": "30", "forty": "40", "fifty": "50", "hundred": "100", "thousand": "1000"}
_NUMBER_WORDS |= {"million": "1000000", "billion": "1000000000"}

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")

_SYMBOL = re.compile(
    r"[+*^=<>$~\u20ac\u00a3\u00a5\u00d7\u00f7\u2260\u2264\u2265\u221a]|(?<=[\d\s])[-\u2212/%](?=[\d\s])|\b[A-Z]#"
)
"""Operators and currencies; a hyphen or slash is one between numbers or spaces, not within words."""

_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_SEASONS = "spring summer autumn winter"
_DATES = {word: word for word in f"{_MONTHS} {_DAYS} {_SEASONS} christmas easter".split()}
_DATES |= {word[:3]: word for word in _MONTHS.split()} | {"sept": "september", "fall": "autumn"}
for _modal in ("may", "mar", "jan", "dec", "fall", "spring"):
    del _DATES[_modal]  # mostly something else

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
    / tb terabyte terabytes / dollar dollars usd / euro euros eur / gbp / rupee rupees inr / yen jpy
    / yuan cny / hz hertz / mhz / ghz / percent / degree degrees / radian radians
"""
_UNIT_OF = {word: unit.split()[0] for unit in _UNITS.split("/") for word in unit.split()}


def other_numbers(first: str, second: str) -> bool:
    """Whether the numbers differ, however written: `1,000` is `1000`, `two` is `2`."""
    return numbers(first) != numbers(second)


def other_dates(first: str, second: str) -> bool:
    """Whether each question has a month, day of the week, season or holiday that the other has not."""
    a, b = _named(first, _DATES), _named(second, _DATES)
    return bool(a - b) and bool(b - a)


def other_units(first: str, second: str) -> bool:
    """Whether each question has a unit of measure or currency that the other has not."""
    a, b = _named(first, _UNIT_OF), _named(second, _UNIT_OF)
    return bool(a - b) and bool(b - a)


def other_symbols(first: str, second: str) -> bool:
    """Whether operators or currency signs differ."""
    return _SYMBOL.findall(first) != _SYMBOL.findall(second)


def numbers(text: str) -> Counter[str]:
    """The numbers of a text, in digits."""
    found = [re.sub(r",(?=\d{3}(?!\d))", "", number) for number in _NUMBER.findall(text)]
    return Counter(found + [_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS])


def _named(text: str, names: dict[str, str]) -> set[str]:
    return {names[word] for word in words(text) if word in names}
