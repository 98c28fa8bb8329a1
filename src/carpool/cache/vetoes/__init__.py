"""Reasons why two similar questions have different answers, whatever their cosine.

Each is a rule that is right nearly always when it speaks, and that a calibrated probability cannot replace:
the embedder hardly sees what it is about. Most wrong hits are beyond such rules. English words and Arabic
digits only.
"""

from collections.abc import Callable
from functools import lru_cache

from .antonyms import opposite
from .dates import other_dates
from .direction import other_direction
from .identifiers import other_case, other_code, other_identifiers
from .languages import other_language
from .names import other_names
from .negation import other_polarity
from .numbers import other_numbers, other_symbols, other_units

_VETOES: tuple[tuple[str, Callable[[str, str], bool]], ...] = (
    ("language", other_language),
    ("numbers", other_numbers),
    ("dates", other_dates),
    ("units", other_units),
    ("symbols", other_symbols),
    ("negation", other_polarity),
    ("antonyms", opposite),
    ("direction", other_direction),
    ("names", other_names),
    ("case", other_case),
    ("identifiers", other_identifiers),
    ("code", other_code),
)
NAMES = tuple(name for name, _ in _VETOES)
"""In the order in which they are asked."""


@lru_cache(4096)
def vetoed(first: str, second: str) -> str | None:
    """The name of the first veto that two questions meet, or None."""
    return next((name for name, differs in _VETOES if differs(first, second)), None)


__all__ = ["NAMES", "vetoed"]
