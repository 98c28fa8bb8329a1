"""The calibrated probability that one answer serves two questions, as it is shipped for an embedder.

A logistic regression on `features` and their hinges; `python -m bench.cache_stream.calibrate` fits it, and
docs/semantic-cache.md tells on what. The file holds fitted numbers only, and what they were fitted on.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from importlib import resources
from math import exp
from pathlib import Path

import msgspec

from carpool.cache.acceptance import Level
from carpool.cache.features import NAMES, Candidate, Comparison, compare, features
from carpool.errors import StartError

VERSION = 2
"""Of the features; a file of another version is refused."""
_PAIRS = 4096
"""Pairs of texts whose comparison is remembered, about 1 KiB each."""


class Term(msgspec.Struct, frozen=True):
    """One addend of the log odds: `weight` times how far a feature is above `knot`, or the feature itself."""

    feature: str
    knot: float | None
    weight: float


class Calibration(msgspec.Struct, frozen=True, dict=True):
    """See the module. `Calibration.read` checks what a file holds."""

    version: int
    embedder: str
    """The model whose cosines these are."""
    floor: float
    """Cosine below which no candidate is looked at."""
    data: dict[str, str]
    """SHA-256 of each file that was fitted on."""
    intercept: float
    terms: list[Term]
    rarity: dict[str, float]
    """-log of the share of questions that have a word."""
    rarest: float
    """The same for all other words."""
    levels: list[Level]
    """In ascending order of probability, with falling shares of wrong hits."""
    validation: dict[str, float]
    """Figures of the cross-validation."""

    @classmethod
    def shipped(cls, embedder: str) -> "Calibration | None":
        """The calibration in the package for an embedder; None if there is none."""
        file = resources.files("carpool.cache") / "calibrations" / f"{embedder}.json"
        return cls.decode(file.read_bytes()) if file.is_file() else None

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """The calibration in a file. Raises `StartError` if it is none."""
        try:
            return cls.decode(path.read_bytes())
        except OSError as error:
            raise StartError(f"cache.calibration: {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise StartError(f"cache.calibration: {path} is no calibration: {error}") from None

    @classmethod
    def decode(cls, data: bytes) -> "Calibration":
        """Raises `ValueError` where something is missing or does not fit."""
        found = msgspec.json.decode(data, type=cls)
        if found.version != VERSION:
            raise ValueError(f"version {found.version}, not {VERSION}")
        if unknown := {term.feature for term in found.terms} - set(NAMES):
            raise ValueError(f"unknown features {', '.join(sorted(unknown))}")
        if not found.levels or found.levels != sorted(found.levels, key=lambda level: level.probability):
            raise ValueError("the levels are not in ascending order")
        return found

    def probability(self, question: str, candidate: Candidate) -> float:
        """Of the stored answer serving the question."""
        values = features(candidate, self._compared(question, candidate.text))
        log_odds = self.intercept
        for index, knot, weight in self._compiled:
            value = values[index]
            log_odds += weight * (value if knot is None else max(0.0, value - knot))
        return 1 / (1 + exp(-log_odds)) if log_odds > -700 else 0.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what it holds; its probabilities are no other calibration's."""
        return sha256(msgspec.json.encode(self)).hexdigest()

    @cached_property
    def _compared(self) -> Callable[[str, str], Comparison]:
        """Two texts, compared once: what one asks in other words, others do, too."""
        return lru_cache(_PAIRS)(partial(compare, rarity=self.rarity, rarest=self.rarest))

    @cached_property
    def _compiled(self) -> list[tuple[int, float | None, float]]:
        return [(NAMES.index(term.feature), term.knot, term.weight) for term in self.terms]
