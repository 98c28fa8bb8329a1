"""Fits a `Calibration` to what the searches of replayed streams find. NumPy only.

A logistic regression is fitted to labels, with slopes that may change at quantiles. What it says of rows that
it was not fitted to, with their labels, tells their truth; it is fitted to that again, and its log odds, of
rows that it was not fitted to, are stretched and shifted to the truth. All figures are of such rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carpool.cache.acceptance import Level
from carpool.cache.calibration import VERSION, Calibration, Term
from carpool.cache.candidates import Array, Rarity, Rows
from carpool.cache.confidence import wilson_interval
from carpool.cache.features import NAMES

_KNOTS = (0.25, 0.5, 0.75)
"""Quantiles at which a feature's slope may change."""
_BENT = NAMES[:14]
_PENALTY = 30.0
_STEP = 0.001
_LOWEST = 0.5
"""Probability of the lowest level: nothing below is served, or audited."""
_BOUNDS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1)
"""Shares of wrong hits for which there is a level that is no higher than need be, where they fall so low."""
_GAP = 0.01
"""Between the other levels, and between those and these: verdicts move a level by one at a time."""
_MIN_HITS = 100
"""Hits that a level must have for its share of wrong ones to be told."""
_Z = 1.28
"""A level's share of wrong hits is the upper end of its Wilson interval: it is below with 90 %."""


@dataclass
class Bends:
    """The linear terms: every feature, and again above its knots."""

    terms: list[tuple[str, float | None]]

    @classmethod
    def of(cls, values: Array) -> "Bends":
        """With knots at quantiles."""
        terms: list[tuple[str, float | None]] = [(name, None) for name in NAMES]
        for name in _BENT:
            column = values[:, NAMES.index(name)]
            knots = sorted({round(float(each), 4) for each in np.quantile(column, _KNOTS)})
            terms += [(name, knot) for knot in knots if column.min() < knot < column.max()]
        return cls(terms)

    def design(self, values: Array) -> Array:
        """One row for each candidate, one column for each term."""
        columns = [
            values[:, NAMES.index(name)]
            if knot is None
            else np.maximum(0, values[:, NAMES.index(name)] - knot)
            for name, knot in self.terms
        ]
        return np.stack(columns, axis=1)


def logistic(design: Array, target: Array, weight: Array, penalty: float) -> tuple[Array, float]:
    """Weights and intercept of a ridge-penalised logistic regression, by Newton's method."""
    mean, scale = design.mean(0), design.std(0) + 1e-9
    x = np.concatenate([(design - mean) / scale, np.ones((len(design), 1))], axis=1)
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 1e-6
    weights = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ weights))
        curvature = weight * p * (1 - p) + 1e-9
        hessian = (x * curvature[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(hessian, x.T @ (weight * (p - target)) + ridge * weights)
        weights -= step
        if np.abs(step).max() < 1e-5:
            break
    slopes = weights[:-1] / scale
    return slopes, float(weights[-1] - slopes @ mean)


def sigmoid(log_odds: Array) -> Array:
    """Log odds to probability."""
    return np.asarray(1 / (1 + np.exp(-log_odds)), dtype=np.float64)


def first_hits(rows: Rows, score: Array, level: float) -> NDArray[np.int64]:
    """The row that serves each question at a level: its best."""
    best: dict[int, int] = {}
    for row in np.flatnonzero(score >= level):
        question = rows.questions[row]
        if question not in best or score[row] > score[best[question]]:
            best[question] = int(row)
    return np.array(sorted(best.values()), dtype=np.int64)


@dataclass
class Fitted:
    """A calibration, and what it says of rows that it was not fitted to, fold after fold."""

    calibration: Calibration
    score: Array
    truth: Array
    labels: Array


def fit(
    folds: Sequence[Rows],
    rarity: Rarity,
    *,
    embedder: str,
    floor: float,
    data: dict[str, str],
    truth_of: Callable[[Array, Array], Array] = lambda _, labels: labels,
    extra: tuple[Array, Array, float] | None = None,
) -> Fitted:
    """Fit to all folds but one, in turn, to validate, and to all of them for the calibration.

    `truth_of` makes probabilities of the same answer from log odds and labels. `extra`: values, labels and
    the weight of rows that are fitted to, too, and in no fold. Raises `ValueError` for too few hits.
    """
    bends = Bends.of(np.concatenate([fold.values for fold in folds]))
    more = [] if extra is None else [(bends.design(extra[0]), extra[1], np.full(len(extra[1]), extra[2]))]

    def fit_to(parts: Sequence[Rows], targets: Sequence[Array]) -> tuple[Array, float]:
        rows = [
            (bends.design(part.values), target, np.ones(len(target)))
            for part, target in zip(parts, targets, strict=True)
        ]
        design, same, weight = (np.concatenate(column) for column in zip(*rows, *more, strict=True))
        return logistic(design, same, weight, _PENALTY)

    def held_out(targets: Sequence[Array]) -> Array:
        found = []
        for at, fold in enumerate(folds):
            others = [i for i in range(len(folds)) if i != at]
            slopes, intercept = fit_to([folds[i] for i in others], [targets[i] for i in others])
            found.append(bends.design(fold.values) @ slopes + intercept)
        return np.concatenate(found)

    labels = np.concatenate([fold.same for fold in folds])
    ends = np.cumsum([len(fold.same) for fold in folds])[:-1]
    by_label = held_out([fold.same for fold in folds])
    truth = truth_of(by_label, labels)
    truths = np.split(truth, ends)
    raw = held_out(truths)
    stretches, shift = logistic(raw[:, None], truth, np.ones(len(raw)), 1e-3)
    stretch = float(stretches[0])
    score = sigmoid(stretch * raw + shift)
    slopes, intercept = fit_to(folds, truths)
    calibration = Calibration(
        version=VERSION,
        embedder=embedder,
        floor=floor,
        data=data,
        intercept=round(stretch * intercept + shift, 5),
        terms=[
            Term(name, knot, round(stretch * float(slope), 5))
            for (name, knot), slope in zip(bends.terms, slopes, strict=True)
        ],
        rarity=rarity.of_words,
        rarest=rarity.rarest,
        levels=_levels(folds, score, truth),
        validation=_validation(score, truth, labels, sigmoid(by_label)),
    )
    return Fitted(calibration, score, truth, labels)


def _levels(folds: Sequence[Rows], score: Array, truth: Array) -> list[Level]:
    found, shares = [], []
    for level in np.arange(_LOWEST, 1, _STEP):
        served, wrong, start = 0, 0.0, 0
        for fold in folds:
            end = start + len(fold.same)
            rows = first_hits(fold, score[start:end], float(level))
            served += len(rows)
            wrong += float((1 - truth[start:end][rows]).sum())
            start = end
        if served < _MIN_HITS:
            break
        found.append(round(float(level), 3))
        shares.append(wilson_interval(wrong, served, _Z).upper)
    if not found:
        raise ValueError(f"fewer than {_MIN_HITS} hits at any level")
    falling = [round(float(share), 4) for share in np.minimum.accumulate(shares)]
    at_bounds = {next((i for i, share in enumerate(falling) if share <= bound), -1) for bound in _BOUNDS} - {
        -1
    }
    chosen = sorted(at_bounds | {0})
    for i, level in enumerate(found):
        if min(abs(level - found[other]) for other in chosen) >= _GAP - _STEP / 2:
            chosen.append(i)
    return [Level(found[i], falling[i]) for i in sorted(chosen)]


def _validation(score: Array, truth: Array, labels: Array, raw: Array) -> dict[str, float]:
    def loss(p: Array, target: Array) -> float:
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return round(float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()), 4)

    bins = np.digitize(score, np.arange(0.1, 1, 0.1))
    gaps = [
        (bins == b).mean() * abs(float(score[bins == b].mean() - truth[bins == b].mean()))
        for b in range(10)
        if (bins == b).any()
    ]
    return {
        "rows": len(score),
        "log_loss_of_labels": loss(raw, labels),
        "log_loss_of_truth": loss(score, truth),
        "expected_calibration_error": round(float(sum(gaps)), 4),
    }
