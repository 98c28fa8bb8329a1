"""What the benchmark makes of pairs that were read: `bench.cache_stream.reading`."""

import random
from pathlib import Path

import pytest

from bench.cache_stream import report
from bench.cache_stream.data import pair_digest
from bench.cache_stream.reading import Estimate, Reading, is_read_in_full
from carpool.cache.confidence import wilson_interval
from carpool.cache.labelled import Question

SAMPLED = "GPTCache 0.1.44, 0.8"
PAIRS = [(f"asked {number}", f"stored {number}") for number in range(100)]


def reading(verdicts: dict[int, bool], drawn: list[int]) -> Reading:
    return Reading(
        {pair_digest(*PAIRS[number]): same for number, same in verdicts.items()},
        {SAMPLED: [pair_digest(*PAIRS[number]) for number in drawn]},
    )


@pytest.mark.parametrize("contestant", ["cosine 0.800", "policy threshold 0.80", "RedisVL 0.28, 0.1"])
def test_equal_hits_that_are_read_in_full_are_wrong_equally_often(contestant: str) -> None:
    assert is_read_in_full(contestant)
    estimate = reading({number: number % 4 > 0 for number in range(100)}, [0, 4, 8]).wrong(contestant, PAIRS)
    assert (estimate.pairs, estimate.read, estimate.wrong) == (100, 100, 25)
    assert estimate.interval(400) == wilson_interval(25, 400)


def test_what_nobody_read_is_wrong_unless_a_sample_stands_for_it() -> None:
    assert not is_read_in_full(SAMPLED)
    some = reading({number: number < 5 for number in range(20)}, list(range(10, 20)))
    assert some.wrong("cosine 0.800", PAIRS).wrong == 95
    assert some.wrong(SAMPLED, PAIRS).wrong == 15 + 80
    mixed = reading({number: number % 2 == 0 for number in range(20)}, list(range(10, 20)))
    assert mixed.wrong(SAMPLED, PAIRS).wrong == 10 + 40


def test_a_sample_stands_only_for_what_is_not_read_in_full() -> None:
    drawn = reading({number: number < 15 for number in range(20)}, list(range(10, 20)))
    assert drawn.wrong(SAMPLED, PAIRS).wrong == 5 + 40
    assert drawn.beside(PAIRS[:15]).wrong(SAMPLED, PAIRS).wrong == 5 + 80


@pytest.mark.parametrize("drawn_wrong", [30, 54, 60])
def test_a_sample_makes_the_interval_wider(drawn_wrong: int) -> None:
    estimate = Estimate(pairs=3000, read=600, found=400, drawn=60, drawn_wrong=drawn_wrong)
    found = estimate.interval(4500)
    if_all_were_read = wilson_interval(estimate.wrong, 4500)
    assert found.lower < if_all_were_read.lower
    assert found.upper > if_all_were_read.upper
    assert estimate.interval(0) == (0, 1)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    dice = random.Random(3)
    hits, drawn, wrong_read, wrong_rest = 2000, 50, 0.2, 0.9
    held = 0
    for _ in range(400):
        # A hit is right, or labelled wrong and read, or labelled wrong and for the sample to stand for.
        kinds = dice.choices(["right", "read", "rest"], (0.4, 0.2, 0.4), k=hits)
        rest = [dice.random() < wrong_rest for kind in kinds if kind == "rest"]
        found = sum(dice.random() < wrong_read for kind in kinds if kind == "read") + sum(rest[:drawn])
        labelled, read = kinds.count("read") + len(rest), kinds.count("read") + drawn
        lower, upper = Estimate(labelled, read, found, drawn, sum(rest[:drawn])).interval(hits)
        held += lower <= 0.2 * wrong_read + 0.4 * wrong_rest <= upper
    assert held >= 0.92 * 400


def test_the_report_tells_how_many_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    stream = [Question(text, text) for pair in PAIRS for text in pair]
    hits = [(2 * number, 2 * number + 1) for number in range(100)]
    verdicts = reading({number: number % 4 > 0 for number in range(90)}, list(range(80, 90)))
    report.write(stream, {"cosine 0.800": hits[:90], SAMPLED: hits}, verdicts, "digest")
    table = (tmp_path / "cache_stream.md").read_text()
    assert "| cosine 0.800 | 90 |" in table
    assert "| 90 of 90 | 25.56 (" in table
    assert "| 90 of 100 |" in table
