"""From which probability on a stored answer is served, so that a bounded share of such answers is wrong.

A level is a lower bound on the calibrated probability of the same answer. The shipped calibration knows what
share of hits was wrong at each level on its own data; verdicts on this server's own cases tell what it is
here. They move the level down only to where the share is proved to be within the bound, and up as soon as it
is proved to be beyond it. The proofs hold at every moment (`confidence`), so looking at each verdict is fair;
the levels are tried in a fixed order and each step needs the one before, so trying many is fair as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from carpool.cache.confidence import Interval, confidence_interval
from carpool.cache.judge import HUMAN, JudgeQuality

MIN_AUDITS = 300
"""Judged cases below which the shipped calibration alone decides."""

ALPHA = 0.05
"""Probability, at most, that an interval misses the truth at any time."""

_MIN_STEP = 30
"""Judged cases that only the lower level would serve, for a step down to it."""

NEVER = 2.0
"""A level that no probability reaches."""

_PRIOR_STRENGTH = 100.0
"""Verdicts that the shipped calibration is worth in the intervals."""

Standing = Literal["not audited", "prior only", "open", "within bound", "raised"]
"""`not audited`: no qualified judge has spoken. `prior only`: fewer than `MIN_AUDITS` verdicts. `open`: they
neither prove nor refute that the share of wrong hits is within the bound. `within bound`: proved. `raised`:
the shipped calibration's own level was refuted here, and a higher one is in force."""


@dataclass(frozen=True, slots=True)
class Level:
    """One row of the calibration: what the hits from this probability on were like."""

    probability: float
    wrong_share: float
    """Wrong hits / hits on the calibration's data, at most, with 90 % confidence."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The level in force for a tenant and a model, and what is known of the hits it serves."""

    level: float
    """Probability from which on an answer is served; above 1: none is."""
    standing: Standing
    expected: float
    """Wrong hits / hits by the shipped calibration."""
    audits: int
    """Cases from the level on that a qualified judge has spoken on, each counted once."""
    wrong: int
    """Those that were wrong, as a person said, or else the judge."""
    interval: Interval
    """Wrong hits / hits here, at any time with 95 % confidence, errors of the judges included; 0 to 1 where
    nothing is known."""


@dataclass(slots=True)
class _Tally:
    """Verdicts by band: below the first level, from the first on, ..."""

    trials: list[int]
    events: list[int]

    def add(self, band: int, wrong: bool) -> None:
        self.trials[band] += 1
        self.events[band] += wrong

    def above(self, level: int) -> tuple[int, int]:
        """Events and trials from the level of this index on."""
        return sum(self.events[level + 1 :]), sum(self.trials[level + 1 :])


@dataclass(slots=True)
class AcceptancePolicy:
    """Keeps the levels of all tenants and models. `levels` ascend in probability."""

    levels: Sequence[Level]
    max_wrong: float
    judges: Mapping[str, JudgeQuality] = field(default_factory=dict)
    """The judges whose verdicts count, besides people."""
    show: Callable[[str, str, Acceptance], None] | None = None
    """Told of tenant, model and what is in force for them, whenever that is decided anew."""
    _tallies: dict[tuple[str, str], dict[str, _Tally]] = field(default_factory=dict, init=False)
    """By judge."""
    _outranked: dict[tuple[str, str], dict[str, _Tally]] = field(default_factory=dict, init=False)
    """Of these, the ones on cases that a person has judged as well."""
    _in_force: dict[tuple[str, str], Acceptance] = field(default_factory=dict, init=False)

    def record(self, tenant: str, model: str, probability: float, judge: str, *, wrong: bool) -> None:
        """Count a verdict. One of a judge that is not known is ignored."""
        self._count(self._tallies, tenant, model, probability, judge, wrong)

    def outrank(self, tenant: str, model: str, probability: float, judge: str, *, wrong: bool) -> None:
        """A person has judged a case, too, on which this verdict was counted.

        The case is the person's from now on. The judge's own interval keeps the verdict: its measured errors
        are those on all cases, not on those that nobody has looked at.
        """
        self._count(self._outranked, tenant, model, probability, judge, wrong)

    def _count(
        self,
        where: dict[tuple[str, str], dict[str, _Tally]],
        tenant: str,
        model: str,
        probability: float,
        judge: str,
        wrong: bool,
    ) -> None:
        if judge != HUMAN and judge not in self.judges:
            return
        tally = where.setdefault((tenant, model), {}).setdefault(judge, self._no_tally())
        tally.add(sum(level.probability <= probability for level in self.levels), wrong)
        self._in_force.pop((tenant, model), None)

    def _no_tally(self) -> _Tally:
        bands = len(self.levels) + 1
        return _Tally([0] * bands, [0] * bands)

    def acceptance(self, tenant: str, model: str) -> Acceptance:
        """What is in force now."""
        key = (tenant, model)
        if key not in self._in_force:
            found = self._in_force[key] = self._decide(
                self._tallies.get(key, {}), self._outranked.get(key, {})
            )
            if self.show is not None:
                self.show(tenant, model, found)
        return self._in_force[key]

    def all(self) -> dict[tuple[str, str], Acceptance]:
        """What is in force wherever it was asked for or a verdict was given."""
        return {key: self.acceptance(*key) for key in sorted({*self._tallies, *self._in_force})}

    def _decide(self, tallies: Mapping[str, _Tally], outranked: Mapping[str, _Tally]) -> Acceptance:
        start = next(
            (i for i, level in enumerate(self.levels) if level.wrong_share <= self.max_wrong),
            len(self.levels),
        )
        prior = self._at(start, tallies, outranked)
        if prior.standing in ("not audited", "prior only"):
            return prior
        found, at = prior, start
        while found.interval.lower > self.max_wrong and at < len(self.levels):
            at += 1
            found = self._at(at, tallies, outranked)
        if at > start:
            return replace(found, standing="raised")
        while at and found.interval.upper <= self.max_wrong:
            lower = self._at(at - 1, tallies, outranked)
            if lower.audits < found.audits + _MIN_STEP or lower.interval.upper > self.max_wrong:
                break
            found, at = lower, at - 1
        return found

    def _at(self, at: int, tallies: Mapping[str, _Tally], outranked: Mapping[str, _Tally]) -> Acceptance:
        """What is known of the hits that the level of this index serves; beyond the last it serves none."""
        if at == len(self.levels):
            return Acceptance(NEVER, "not audited", 0.0, 0, 0, Interval(0.0, 0.0))
        level = self.levels[at]
        interval = Interval(0.0, 1.0)
        audits = wrong = 0
        for judge, tally in tallies.items():
            events, trials = tally.above(at)
            by_judge = self._interval(judge, events, trials, level.wrong_share, ALPHA / len(tallies))
            if by_judge is not None:
                interval = Interval(max(interval.lower, by_judge.lower), min(interval.upper, by_judge.upper))
                twice_wrong, twice = outranked.get(judge, self._no_tally()).above(at)
                audits, wrong = audits + trials - twice, wrong + events - twice_wrong
        standing: Standing = "open"
        if not audits:
            standing = "not audited"
        elif audits < MIN_AUDITS:
            standing = "prior only"
        elif interval.upper <= self.max_wrong:
            standing = "within bound"
        return Acceptance(level.probability, standing, level.wrong_share, audits, wrong, interval)

    def _interval(self, judge: str, events: int, trials: int, mean: float, alpha: float) -> Interval | None:
        """By one judge's verdicts; None if it is not qualified. Half of `alpha` is for its own errors."""
        observed = confidence_interval(
            events, trials, alpha=alpha / 2, mean=min(max(mean, 0.001), 0.999), strength=_PRIOR_STRENGTH
        )
        return self.judges.get(judge, JudgeQuality()).corrected(observed, alpha / 2)
