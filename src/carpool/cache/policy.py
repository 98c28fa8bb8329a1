"""Which of the nearest stored questions may answer a new one: the two policies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from carpool.cache.acceptance import AcceptancePolicy
from carpool.cache.calibration import Calibration
from carpool.cache.entry import Entry
from carpool.cache.features import with_margins
from carpool.cache.query import Query

Found = tuple[Entry, float]
"""A stored question and its cosine."""

LONG_TEMPLATE = 8
"""Words that two turns share at their ends from which on the rest is compared under `verified`, too. Below,
the calibrated probability has seen enough such pairs: of those that it accepts and the comparison would rule
out, no more are wrong than of all others."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate that is near enough, unless a veto or its difference rules it out."""

    entry: Entry
    cosine: float
    probability: float | None
    """Of the same answer; None under `threshold`."""
    accepted: bool
    """False: to be audited, not to be served."""


class Policy(Protocol):
    """See `ThresholdPolicy` and `VerifiedPolicy`."""

    @property
    def floor(self) -> float:
        """Cosine that a candidate must be above."""
        ...

    @property
    def min_shared(self) -> int:
        """See `difference.difference`."""
        ...

    def choose(self, query: Query, found: Sequence[Found]) -> list[Choice]:
        """The candidates to consider, best first. `found`: nearest first."""
        ...


class ThresholdPolicy:
    """The nearest above a fixed cosine."""

    min_shared = 0

    def __init__(self, threshold: float) -> None:
        self.floor = threshold

    def choose(self, query: Query, found: Sequence[Found]) -> list[Choice]:  # noqa: ARG002
        """See `Policy`."""
        return [Choice(entry, cosine, None, True) for entry, cosine in found]


class VerifiedPolicy:
    """The most probable above the level in force for the tenant and the model."""

    min_shared = LONG_TEMPLATE

    def __init__(self, calibration: Calibration, acceptance: AcceptancePolicy) -> None:
        self.floor = calibration.floor
        self._calibration = calibration
        self._acceptance = acceptance
        self._lowest = calibration.levels[0].probability

    def choose(self, query: Query, found: Sequence[Found]) -> list[Choice]:
        """See `Policy`. Where none is at the level in force: the best, if at a lower one, to be audited."""
        level = self._acceptance.acceptance(query.tenant, query.model).level
        candidates = with_margins([(entry.turn or "", cosine) for entry, cosine in found], self.floor)
        choices = []
        for (entry, cosine), candidate in zip(found, candidates, strict=True):
            probability = self._calibration.probability(query.turn or "", candidate)
            if probability >= self._lowest:
                choices.append(Choice(entry, cosine, probability, probability >= level))
        choices.sort(key=lambda choice: choice.probability or 0.0, reverse=True)
        return [choice for choice in choices if choice.accepted] or choices[:1]


class ExactPolicy:
    """Nothing is served by meaning: no calibration fits the embedder."""

    floor = 1.0
    min_shared = 0

    def choose(self, query: Query, found: Sequence[Found]) -> list[Choice]:  # noqa: ARG002
        """See `Policy`."""
        return []
