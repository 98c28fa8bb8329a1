"""A calibration from an operator's own labelled pairs."""

import hashlib
from collections.abc import Callable, Hashable, Sequence

import msgspec
import numpy as np

from carpool.cache.calibration import Calibration
from carpool.cache.candidates import Rarity, Rows, Vectors, collect
from carpool.cache.fitting import fit
from carpool.cache.labelled import Pair, Question, compared, streams

FLOOR = 0.8
"""Cosine below which a search finds nothing, unless told otherwise."""
_STREAM_LENGTH = 10_000
_FOLDS = 5
_SERVED = 0.75
"""Quantile of the cosines of the pairs labelled the same from which the replay serves: a verified policy
finds about a quarter of them safe."""
_MIN_ROWS = 100
"""Candidates of either label that are enough to fit to."""
_QUESTIONS_A_WORD = 1500
"""A word's rarity is told if so small a part of the questions has it, and `_MIN_COUNT` of them."""
_MIN_COUNT = 4


def calibrate(
    pairs: Sequence[Pair],
    vectors: Vectors,
    *,
    embedder: str,
    floor: float = FLOOR,
    pause: Callable[[], None] = lambda: None,
) -> Calibration:
    """Fit to the streams that the pairs make. `pause`: see `candidates.collect`.

    Candidates that no pair compares with the question are left out: nothing is known of them. Raises
    `ValueError` where too few are left.
    """
    made = streams(pairs, _STREAM_LENGTH)
    texts = [question.text for stream in made for question in stream]
    rarity = Rarity.of(texts, max(_MIN_COUNT, len(texts) // _QUESTIONS_A_WORD))
    cosines = [float(vectors[pair.first] @ vectors[pair.second]) for pair in pairs if pair.same]
    if not cosines:
        raise ValueError("no pair is labelled the same")
    reference = float(np.quantile(cosines, _SERVED))
    folds = []
    for stream in made:
        rows = collect(stream, vectors, rarity, floor=floor, reference=reference, pause=pause)
        folds += _split(stream, _known(pairs, stream, rows))
    same = int(sum(fold.same.sum() for fold in folds))
    different = sum(len(fold.same) for fold in folds) - same
    if min(same, different) < _MIN_ROWS:
        raise ValueError(
            f"searches above cosine {floor} find {same} questions labelled the same and {different} labelled "
            f"different; {_MIN_ROWS} of each are needed"
        )
    digest = hashlib.sha256(msgspec.json.encode(list(pairs))).hexdigest()
    return fit(folds, rarity, embedder=embedder, floor=floor, data={"pairs": digest}).calibration


def _known(pairs: Sequence[Pair], stream: Sequence[Question], rows: Rows) -> Rows:
    """The rows of which the labels tell."""
    different = compared(pairs, stream)
    cluster = {question.text: question.cluster for question in stream}
    told = [
        bool(same) or frozenset((cluster[asked], cluster[found])) in different
        for same, (asked, found) in zip(rows.same, rows.pairs, strict=True)
    ]
    return rows.only(np.array(told, bool))


def _split(stream: Sequence[Question], rows: Rows) -> list[Rows]:
    """The rows in folds, those of a cluster's questions in one."""
    order: dict[Hashable, int] = {}
    for question in stream:
        order.setdefault(question.cluster, len(order))
    fold_of = np.array([order[stream[index].cluster] % _FOLDS for index in rows.questions], dtype=int)
    return [rows.only(fold_of == fold) for fold in range(_FOLDS) if (fold_of == fold).any()]
