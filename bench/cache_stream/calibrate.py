"""`python -m bench.cache_stream.calibrate --data DIR`: fit the calibrated probability that the package ships.

Streams are made from the pairs as the test stream was made; no question of that one is among them. Each is
replayed, and every stored question that a search finds is a row with its label. A logistic regression is
fitted to the labels, and its log odds to the truth as far as a person read it: `verdicts_calibration.json`
tells how many of the pairs labelled different have one answer. All figures are of held-out streams.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.cache_stream import data
from bench.cache_stream.neighbours import neighbours, replay
from bench.cache_stream.vectors import DEFAULT_PATH, Vectors
from carpool.cache.acceptance import Level
from carpool.cache.calibration import VERSION, Calibration, Term
from carpool.cache.difference import plain_words
from carpool.cache.features import NAMES, Candidate, features, with_margins
from carpool.cache.semantic import CANDIDATES
from carpool.cache.vetoes import vetoed
from carpool.models.starter import EMBEDDING_MODEL

Array = NDArray[np.float64]

FLOOR = 0.8
_REFERENCE = 0.92
"""Cosine from which the replay that collects rows serves: about as often as the policy will."""
_MIN_COUNT = 40
"""Questions that must have a word for its rarity to be shipped."""
_KNOTS = (0.25, 0.5, 0.75)
"""Quantiles at which a feature's slope may change."""
_BENT = NAMES[:12] + NAMES[12:14]
_OTHER_WEIGHT = 0.3
"""Of a row of the other sets, which hold statements and medical stories."""
_PENALTY = 3.0
_LEVELS = (*np.arange(0.5, 0.9, 0.02), *np.arange(0.9, 0.985, 0.01))
_TARGET = Path(__file__).parents[2] / "src/carpool/cache/calibrations"
VERDICTS = Path(__file__).parent / "verdicts_calibration.json"


@dataclass
class Rows:
    """Candidates of one stream, in the order of its questions."""

    questions: list[int]
    values: Array
    """[rows, features]"""
    same: Array
    """By label."""
    digests: list[str]
    vetoed: NDArray[np.bool_]


def collect(
    stream: Sequence[data.Question], vectors: Vectors, rarity: dict[str, float], rarest: float
) -> Rows:
    """What the searches of a replay find."""
    questions, values, same, digests, ruled_out = [], [], [], [], []

    def serve(index: int, near: list[tuple[int, float]]) -> int | None:
        asked = stream[index]
        found = with_margins([(stream[each].text, cosine) for each, cosine in near], FLOOR)
        for (each, _), candidate in zip(near, found, strict=True):
            questions.append(index)
            values.append(features(asked.text, candidate, rarity, rarest))
            same.append(asked.cluster == stream[each].cluster)
            digests.append(data.pair_digest(asked.text, candidate.text))
            ruled_out.append(vetoed(asked.text, candidate.text) is not None)
        return near[0][0] if near[0][1] >= _REFERENCE else None

    near = neighbours(vectors.matrix(question.text for question in stream), FLOOR)
    replay(near, serve, CANDIDATES)
    return Rows(questions, np.array(values), np.array(same, float), digests, np.array(ruled_out))


def others(directory: Path, vectors: Vectors, rarity: dict[str, float], rarest: float) -> Rows:
    """The pairs of the other sets that a search would find."""
    values, same = [], []
    for name in data.OTHER_PAIRS:
        for pair in data.pairs(directory, name):
            cosine = float(vectors[pair.first] @ vectors[pair.second])
            if cosine > FLOOR:
                candidate = Candidate(pair.second, cosine, cosine - FLOOR, 1)
                values.append(features(pair.first, candidate, rarity, rarest))
                same.append(pair.same)
    return Rows([], np.array(values), np.array(same, float), [], np.zeros(len(same), bool))


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
    """The row that serves each question at a level: its best that no veto rules out."""
    best: dict[int, int] = {}
    for row in np.flatnonzero((score >= level) & ~rows.vetoed):
        question = rows.questions[row]
        if question not in best or score[row] > score[best[question]]:
            best[question] = int(row)
    return np.array(sorted(best.values()), dtype=np.int64)


def main() -> None:
    """Fit, validate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory with the labelled questions")
    parser.add_argument("--vectors", type=Path, default=DEFAULT_PATH, help="file that keeps the vectors")
    parser.add_argument("--out", type=Path, default=_TARGET / f"{EMBEDDING_MODEL.model_id}.json")
    arguments = parser.parse_args()
    directory: Path = arguments.data
    streams = data.streams(directory)
    vectors = Vectors(arguments.vectors)
    vectors.fill(data.texts_of(streams))
    vectors.fill(
        text for name in data.OTHER_PAIRS for p in data.pairs(directory, name) for text in (p.first, p.second)
    )
    counts = Counter(word for text in data.texts_of(streams) for word in set(plain_words(text)))
    total = len(data.texts_of(streams))
    rarity = {w: round(math.log(total / n), 2) for w, n in sorted(counts.items()) if n >= _MIN_COUNT}
    rarest = round(math.log(total / (_MIN_COUNT / 4)), 2)
    folds = []
    for stream in streams:
        folds.append(collect(stream, vectors, rarity, rarest))
        print(f"{len(folds[-1].same)} candidates", file=sys.stderr)
    extra = others(directory, vectors, rarity, rarest)
    bends = Bends.of(np.concatenate([fold.values for fold in folds]))

    def fit(parts: Sequence[Rows]) -> tuple[Array, float]:
        design = np.concatenate([bends.design(part.values) for part in (*parts, extra)])
        same = np.concatenate([part.same for part in (*parts, extra)])
        weight = np.ones(len(same))
        weight[len(same) - len(extra.same) :] = _OTHER_WEIGHT
        return logistic(design, same, weight, _PENALTY)

    held_out = []
    for fold in folds:
        slopes, intercept = fit([each for each in folds if each is not fold])
        held_out.append(bends.design(fold.values) @ slopes + intercept)
    raw = np.concatenate(held_out)
    labels = np.concatenate([fold.same for fold in folds])
    truth = _truth(folds, raw, labels)
    stretches, shift = logistic(raw[:, None], truth, np.ones(len(raw)), 1e-3)
    stretch = float(stretches[0])
    score = sigmoid(stretch * raw + shift)
    slopes, intercept = fit(folds)
    calibration = Calibration(
        version=VERSION,
        embedder=EMBEDDING_MODEL.model_id,
        floor=FLOOR,
        data={name: data.digest(directory / name) for name in (data.PAIRS, *data.OTHER_PAIRS)}
        | {"verdicts": data.digest(VERDICTS)},
        intercept=round(stretch * intercept + shift, 5),
        terms=[
            Term(name, knot, round(stretch * float(slope), 5))
            for (name, knot), slope in zip(bends.terms, slopes, strict=True)
        ],
        rarity=rarity,
        rarest=rarest,
        levels=_levels(folds, score, truth),
        validation=_validation(score, truth, labels, sigmoid(raw)),
    )
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n")
    _report(folds, calibration, score, truth, labels)


def _truth(folds: Sequence[Rows], raw: Array, labels: Array) -> Array:
    """Probability that one answer serves a pair, given its label and log odds: fitted to what was read."""
    read = data.verdicts(VERDICTS)
    digests = [digest for fold in folds for digest in fold.digests]
    known = np.array([digest in read for digest in digests])
    said = np.array([read.get(digest, False) for digest in digests], float)
    inputs = np.stack([raw, labels], axis=1)
    slopes, intercept = logistic(inputs[known], said[known], np.ones(int(known.sum())), 1e-2)
    print(
        f"{known.sum()} pairs were read; log odds and label count {slopes}, {intercept:.2f}", file=sys.stderr
    )
    return np.where(known, said, sigmoid(inputs @ slopes + intercept))


def _levels(folds: Sequence[Rows], score: Array, truth: Array) -> list[Level]:
    shares = []
    for level in _LEVELS:
        served, wrong, start = 0, 0.0, 0
        for fold in folds:
            end = start + len(fold.same)
            rows = first_hits(fold, score[start:end], float(level))
            served += len(rows)
            wrong += float((1 - truth[start:end][rows]).sum())
            start = end
        shares.append(wrong / served if served else 0.0)
    falling = np.minimum.accumulate(shares)
    return [Level(round(float(p), 2), round(float(s), 4)) for p, s in zip(_LEVELS, falling, strict=True)]


def _validation(score: Array, truth: Array, labels: Array, raw: Array) -> dict[str, float]:
    def loss(p: Array, target: Array) -> float:
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


def _report(
    folds: Sequence[Rows], calibration: Calibration, score: Array, truth: Array, labels: Array
) -> None:
    print(calibration.validation)
    print("probability  rows  mean  labelled same  estimated same")
    for low in np.arange(0, 1, 0.1):
        inside = (score >= low) & (score < low + 0.1)
        if inside.any():
            means = [float(each[inside].mean()) for each in (score, labels, truth)]
            print(f"{low:.1f} {inside.sum():8d}   " + "   ".join(f"{mean:.3f}" for mean in means))
    for level in calibration.levels:
        served = 0
        start = 0
        for fold in folds:
            served += len(first_hits(fold, score[start : start + len(fold.same)], level.probability))
            start += len(fold.same)
        print(f"level {level.probability:.2f}: {served} hits, estimated wrong/hits {level.wrong_share:.3f}")


if __name__ == "__main__":
    main()
