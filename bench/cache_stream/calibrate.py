"""`python -m bench.cache_stream.calibrate --data DIR`: fit the calibrated probability that the package ships.

Streams are made from the pairs as the test stream was made; no question of that one is among them. Each is
replayed, and every stored question that a search finds and no rule excludes is a row with its label. What
counts as wrong is what counts in the report on the test stream: a pair that is labelled different and was
read as different, by a language model that saw the two texts alone. `verdicts_calibration.json` holds what
was read, and tells by log odds how many of the others have one answer. All figures are of held-out streams.

`--check` fits nothing: it fails where the shipped calibration was fitted to other data.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench.cache_stream import data
from bench.cache_stream.vectors import DEFAULT_PATH, Vectors
from carpool.cache.calibration import Calibration
from carpool.cache.candidates import Array, Rarity, Rows, collect
from carpool.cache.exclusion import exclusion
from carpool.cache.features import Candidate, compare, features
from carpool.cache.fitting import Fitted, first_hits, fit, logistic, sigmoid
from carpool.cache.policy import LONG_TEMPLATE
from carpool.models.starter import EMBEDDING_MODEL

FLOOR = 0.8
_REFERENCE = 0.92
"""Cosine from which the replay that collects rows serves: about as often as the policy will."""
_MIN_COUNT = 40
"""Questions that must have a word for its rarity to be shipped."""
_OTHER_WEIGHT = 0.1
"""Of a row of the other sets, which hold statements and medical stories."""
_TARGET = Path(__file__).parents[2] / "src/carpool/cache/calibrations"
VERDICTS = Path(__file__).parent / "verdicts_calibration.json"


def others(directory: Path, vectors: Vectors, rarity: Rarity) -> tuple[Array, Array, float]:
    """Values, labels and weight of those pairs of the other sets that are near and that no rule excludes."""
    values, same = [], []
    for name in data.OTHER_PAIRS:
        for pair in data.pairs(directory, name):
            cosine = float(vectors[pair.first] @ vectors[pair.second])
            if cosine > FLOOR and exclusion(pair.first, pair.second, LONG_TEMPLATE) is None:
                candidate = Candidate(pair.second, cosine, cosine - FLOOR, 1)
                values.append(
                    features(candidate, compare(pair.first, candidate.text, rarity.of_words, rarity.rarest))
                )
                same.append(pair.same)
    return np.array(values), np.array(same, float), _OTHER_WEIGHT


def main() -> None:
    """Fit, validate and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory with the labelled questions")
    parser.add_argument("--vectors", type=Path, default=DEFAULT_PATH, help="file that keeps the vectors")
    parser.add_argument("--out", type=Path, default=_TARGET / f"{EMBEDDING_MODEL.model_id}.json")
    parser.add_argument("--check", action="store_true", help="compare the data with what was fitted to")
    arguments = parser.parse_args()
    directory: Path = arguments.data
    digests = {name: data.digest(directory / name) for name in (data.PAIRS, *data.OTHER_PAIRS)}
    digests["verdicts"] = data.digest(VERDICTS)
    if arguments.check:
        _check(arguments.out, digests)
        return
    streams = data.streams(directory)
    vectors = Vectors(arguments.vectors)
    vectors.fill(data.texts_of(streams))
    vectors.fill(
        text for name in data.OTHER_PAIRS for p in data.pairs(directory, name) for text in (p.first, p.second)
    )
    rarity = Rarity.of(data.texts_of(streams), _MIN_COUNT)
    folds = []
    for stream in streams:
        folds.append(collect(stream, vectors, rarity, floor=FLOOR, reference=_REFERENCE))
        print(f"{len(folds[-1].same)} candidates", file=sys.stderr)
    fitted = fit(
        folds,
        rarity,
        embedder=EMBEDDING_MODEL.model_id,
        floor=FLOOR,
        data=digests,
        truth_of=lambda raw, labels: _truth(folds, raw, labels),
        extra=others(directory, vectors, rarity),
    )
    arguments.out.parent.mkdir(exist_ok=True)
    encoded = msgspec.json.encode(fitted.calibration)
    arguments.out.write_bytes(msgspec.json.format(encoded, indent=1) + b"\n")
    _report(folds, fitted)


def _check(path: Path, digests: dict[str, str]) -> None:
    fitted_to = Calibration.read(path).data
    changed = sorted(name for name in digests | fitted_to if digests.get(name) != fitted_to.get(name))
    if changed:
        raise SystemExit(f"{path.name} was fitted to other data: {', '.join(changed)}")
    print(f"{path.name} was fitted to this data")


def _truth(folds: Sequence[Rows], raw: Array, labels: Array) -> Array:
    """Probability that one answer serves a pair: 1 if labelled so, else as read, or by its log odds."""
    read = data.verdicts(VERDICTS)
    digests = [data.pair_digest(*pair) for fold in folds for pair in fold.pairs]
    known = np.array([digest in read for digest in digests])
    said = np.array([read.get(digest, False) for digest in digests], float)
    different = labels == 0
    for name, rows in (("different", known & different), ("the same", known & ~different)):
        print(f"{rows.sum()} pairs labelled {name} were read, {said[rows].mean():.1%} have one answer")
    chosen = known & different
    slopes, intercept = logistic(raw[chosen, None], said[chosen], np.ones(int(chosen.sum())), 1e-2)
    estimated = np.where(known, said, sigmoid(raw * slopes[0] + intercept))
    return np.where(different, estimated, 1.0)


def _report(folds: Sequence[Rows], fitted: Fitted) -> None:
    calibration, score = fitted.calibration, fitted.score
    print(calibration.validation)
    print("probability  rows  mean  labelled same  estimated same")
    for low in np.arange(0, 1, 0.1):
        inside = (score >= low) & (score < low + 0.1)
        if inside.any():
            means = [float(each[inside].mean()) for each in (score, fitted.labels, fitted.truth)]
            print(f"{low:.1f} {inside.sum():8d}   " + "   ".join(f"{mean:.3f}" for mean in means))
    for level in calibration.levels:
        served = 0
        start = 0
        for fold in folds:
            served += len(first_hits(fold, score[start : start + len(fold.same)], level.probability))
            start += len(fold.same)
        print(f"level {level.probability:.3f}: {served} hits, estimated wrong/hits {level.wrong_share:.3f}")


if __name__ == "__main__":
    main()
