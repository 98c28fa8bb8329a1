"""What the evaluation and the calibration of the answer cache take and reply."""

from typing import Annotated

import msgspec
from msgspec import Meta

from carpool.cache.calibration import Calibration
from carpool.cache.confidence import wilson_interval
from carpool.cache.evaluation import Contestant, Evaluation
from carpool.cache.labelled import Pair
from carpool.cache.recalibration import FLOOR
from carpool.gateway.sampling_schema import ModelName

QuestionText = Annotated[str, Meta(min_length=1, max_length=4000)]


class LabelledPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two questions, and whether one answer serves both."""

    first: QuestionText
    second: QuestionText
    same: bool


Pairs = Annotated[list[LabelledPair], Meta(min_length=1, max_length=20_000)]


class EvaluationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Labelled pairs, whose questions are replayed in random order."""

    pairs: Pairs
    calibration: Calibration | None = None
    """What `POST /admin/cache/calibrate` replied, in place of the one in force."""
    max_wrong: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """In place of the configured one."""


class CalibrationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Labelled pairs to fit a calibration to."""

    pairs: Pairs
    embedder: ModelName | None = None
    """As `cache.embedder` will name it; default: as it does."""
    floor: Annotated[float, Meta(ge=0, lt=1)] = FLOOR
    """Cosine below which no candidate is looked at."""


class Share(msgspec.Struct, frozen=True):
    """A share from 0 to 1, with its 95 % Wilson interval; None of nothing."""

    value: float | None
    lower: float
    upper: float

    @classmethod
    def of(cls, events: int, trials: int) -> "Share":
        """Of counts."""
        return cls(events / trials if trials else None, *wilson_interval(events, trials))


class ContestantReply(msgspec.Struct, frozen=True, kw_only=True):
    """What one way to choose did."""

    name: str
    hits: int
    wrong: int
    """Hits between questions that are not the same by the labels."""
    unlabelled: int
    """Hits between questions that no pair compares: they are in neither of the two shares of wrong ones."""
    hit_rate: Share
    """Hits / questions."""
    wrong_of_hits: Share
    """Wrong hits / labelled hits."""
    wrong_of_all: Share
    """Wrong hits / questions, those with an unlabelled hit left out."""

    @classmethod
    def of(cls, found: Contestant, questions: int) -> "ContestantReply":
        """With the shares."""
        return cls(
            name=found.name,
            hits=found.hits,
            wrong=found.wrong,
            unlabelled=found.unlabelled,
            hit_rate=Share.of(found.hits, questions),
            wrong_of_hits=Share.of(found.wrong, found.hits - found.unlabelled),
            wrong_of_all=Share.of(found.wrong, questions - found.unlabelled),
        )


class EvaluationReply(msgspec.Struct, frozen=True, kw_only=True):
    """The policy first, then fixed cosines: the nearest stored question above them, and nothing else."""

    questions: int
    repeats: int
    """Questions that are the same as an earlier one: the hits of a cache that knows everything."""
    contestants: list[ContestantReply]

    @classmethod
    def of(cls, found: Evaluation) -> "EvaluationReply":
        """With the shares."""
        return cls(
            questions=found.questions,
            repeats=found.repeats,
            contestants=[ContestantReply.of(each, found.questions) for each in found.contestants],
        )


def as_pairs(pairs: list[LabelledPair]) -> list[Pair]:
    """As the cache takes them."""
    return [Pair(pair.first, pair.second, pair.same) for pair in pairs]
