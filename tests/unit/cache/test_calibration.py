import hashlib
from pathlib import Path

import msgspec
import pytest

from carpool.cache.calibration import Calibration
from carpool.cache.features import NAMES, Candidate
from carpool.errors import StartError


def shipped() -> Calibration:
    found = Calibration.shipped("all-minilm-l6-v2")
    assert found is not None
    return found


def probability(asked: str, stored: str, cosine: float) -> float:
    return shipped().probability(asked, Candidate(stored, cosine, cosine - 0.8, 1))


def test_the_shipped_one_tells_what_it_was_fitted_on() -> None:
    found = shipped()
    assert found.embedder == "all-minilm-l6-v2"
    assert all(len(digest) == 64 for digest in found.data.values())
    assert "qqp_stream.jsonl.gz" not in found.data
    assert {term.feature for term in found.terms} <= set(NAMES)
    assert found.validation["expected_calibration_error"] < 0.03
    shares = [level.wrong_share for level in found.levels]
    assert shares == sorted(shares, reverse=True)


def test_the_shipped_one_was_fitted_to_the_verdicts_that_are_here() -> None:
    verdicts = Path(__file__).parents[3] / "bench/cache_stream/verdicts_calibration.json"
    assert shipped().data["verdicts"] == hashlib.sha256(verdicts.read_bytes()).hexdigest()


def test_there_is_none_for_other_embedders() -> None:
    assert Calibration.shipped("another-embedder") is None


def test_what_is_alike_is_more_probable_than_what_is_not() -> None:
    same = probability("How can I learn to swim?", "How do I learn to swim?", 0.97)
    near = probability("How can I learn to swim?", "How do I learn to swim butterfly in Norway?", 0.85)
    far = probability("How can I learn to swim?", "Why do whales sing under the ice at night?", 0.81)
    assert same > 0.9 > near > far
    assert 0 < far < 0.4


def test_a_probability_for_every_text() -> None:
    for text in ("", "?", "x" * 400, "\u4f60\u597d " * 60):
        assert 0 <= probability(text, "How do I learn to swim?", 1.0) <= 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 99}, "version 99"),
        ({"terms": [{"feature": "mood", "knot": None, "weight": 1.0}]}, "mood"),
        ({"levels": []}, "levels"),
        ({"levels": [[1]]}, "levels"),
        ({"rarity": None}, "rarity"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], named: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(shipped()) | change))
    with pytest.raises(StartError, match=named):
        Calibration.read(path)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{"])
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(data)
    with pytest.raises(StartError, match=r"cache\.calibration"):
        Calibration.read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        Calibration.read(tmp_path / "none.json")
