import msgspec
import pytest

from carpool.cache.calibration import Calibration
from carpool.cache.features import Candidate
from carpool.cache.index import Vector, normalised
from carpool.cache.labelled import Pair
from carpool.cache.recalibration import calibrate
from tests.unit.cache.bag_of_words import embed_text
from tests.unit.cache.questions import labelled_pairs


def vectors_of(pairs: list[Pair]) -> dict[str, Vector]:
    return {text: normalised(embed_text(text)) for pair in pairs for text in (pair.first, pair.second)}


def test_a_calibration_of_ones_own_tells_same_from_near() -> None:
    pairs = labelled_pairs(200)
    found = calibrate(pairs, vectors_of(pairs), embedder="mine")
    assert found == Calibration.decode(msgspec.json.encode(found))
    assert (found.embedder, found.floor) == ("mine", 0.8)
    assert len(found.data["pairs"]) == 64
    asked = "Why do bees build hexagonal cells everywhere?"
    same = asked.replace("do", "do the")
    near = asked.replace("bees", "wasps")
    probabilities = [found.probability(asked, Candidate(text, 0.95, 0.02, 1)) for text in (same, near)]
    assert probabilities[0] > 0.8
    assert probabilities[1] < 0.2
    assert found.levels[0].wrong_share < 0.1
    assert found.levels[-1].wrong_share > 0  # none was wrong; so few hits do not prove more
    assert found.validation["expected_calibration_error"] < 0.1
    assert calibrate(pairs, vectors_of(pairs), embedder="mine") == found


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (labelled_pairs(20), "100 of each are needed"),
        ([pair for pair in labelled_pairs(20) if not pair.same], "no pair is labelled the same"),
        ([Pair("apples", "pears", True)], "find 0 questions labelled the same"),
    ],
)
def test_too_few_pairs_are_refused(pairs: list[Pair], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        calibrate(pairs, vectors_of(pairs), embedder="mine")


def test_it_can_be_stopped() -> None:
    pairs = labelled_pairs(200)
    calls = 0

    def pause() -> None:
        nonlocal calls
        calls += 1
        raise InterruptedError

    with pytest.raises(InterruptedError):
        calibrate(pairs, vectors_of(pairs), embedder="mine", pause=pause)
    assert calls == 1


def test_a_floor_above_every_cosine_finds_nothing() -> None:
    pairs = labelled_pairs(20)
    with pytest.raises(ValueError, match=r"above cosine 0\.9999"):
        calibrate(pairs, vectors_of(pairs), embedder="mine", floor=0.9999)
