import pytest

from carpool.cache.acceptance import MIN_AUDITS, NEVER, Acceptance, AcceptancePolicy, Level
from carpool.cache.judge import HUMAN, JudgeQuality

LEVELS = [Level(0.6, 0.10), Level(0.7, 0.05), Level(0.8, 0.025), Level(0.9, 0.01)]


def policy(max_wrong: float = 0.03, **judges: JudgeQuality) -> AcceptancePolicy:
    return AcceptancePolicy(LEVELS, max_wrong, judges)


def audit(
    policy: AcceptancePolicy, probability: float, right: int, wrong: int, judge: str = HUMAN
) -> Acceptance:
    for index in range(right + wrong):
        policy.record("t", "m", probability, judge, wrong=index < wrong)
    return policy.acceptance("t", "m")


@pytest.mark.parametrize(
    ("max_wrong", "level"), [(0.2, 0.6), (0.05, 0.7), (0.03, 0.8), (0.01, 0.9), (0.001, NEVER)]
)
def test_the_calibration_decides_at_first(max_wrong: float, level: float) -> None:
    found = policy(max_wrong).acceptance("t", "m")
    assert (found.level, found.standing, found.audits) == (level, "not audited", 0)
    assert found.interval == ((0.0, 1.0) if level < 1 else (0.0, 0.0))
    assert found.expected <= max_wrong


def test_few_verdicts_change_nothing() -> None:
    found = audit(policy(), 0.85, right=0, wrong=MIN_AUDITS - 1)
    assert (found.level, found.standing, found.wrong) == (0.8, "prior only", MIN_AUDITS - 1)


def test_wrong_hits_move_the_level_up_and_every_refuted_level_is_passed() -> None:
    judged = policy()
    found = audit(judged, 0.85, right=250, wrong=50)
    assert (found.level, found.standing) == (0.9, "raised")
    found = audit(judged, 0.95, right=250, wrong=50)
    assert (found.level, found.standing) == (NEVER, "raised")


def test_right_hits_prove_the_level_and_then_lower_ones_from_near_misses() -> None:
    judged = policy()
    found = audit(judged, 0.85, right=1000, wrong=5)
    assert (found.level, found.standing) == (0.8, "within bound")
    assert found.interval.upper <= 0.03
    found = audit(judged, 0.75, right=500, wrong=2)
    assert (found.level, found.standing, found.audits) == (0.7, "within bound", 1507)
    found = audit(judged, 0.65, right=100, wrong=300)
    assert found.level == 0.7


def test_a_level_that_is_neither_proved_nor_refuted_stays() -> None:
    found = audit(policy(), 0.85, right=300, wrong=9)
    assert (found.level, found.standing) == (0.8, "open")
    assert found.interval.lower < 0.03 < found.interval.upper


def test_tenants_and_models_are_pooled_apart() -> None:
    judged = policy()
    assert audit(judged, 0.85, right=250, wrong=50).level == 0.9
    for key in (("t", "other"), ("other", "m")):
        assert judged.acceptance(*key).standing == "not audited"


def test_an_unqualified_or_unknown_judge_does_not_count() -> None:
    coin = JudgeQuality(caught=50, wrong=100, passed=50, right=100)
    judged = policy(coin=coin)
    assert audit(judged, 0.85, right=0, wrong=1000, judge="coin").standing == "not audited"
    assert audit(judged, 0.85, right=0, wrong=1000, judge="stranger").level == 0.8


def test_a_case_that_two_have_judged_is_one_case() -> None:
    good = JudgeQuality(caught=490, wrong=500, passed=4990, right=5000)
    judged = policy(good=good)
    audit(judged, 0.85, right=150, wrong=0, judge="good")
    audit(judged, 0.85, right=150, wrong=0)
    for _ in range(150):
        judged.outrank("t", "m", 0.85, "good", wrong=False)
    found = judged.acceptance("t", "m")
    assert (found.audits, found.wrong, found.standing) == (150, 0, "prior only")


def test_a_measured_judge_counts_with_its_errors() -> None:
    good = JudgeQuality(caught=490, wrong=500, passed=4990, right=5000)
    judged = policy(good=good)
    found = audit(judged, 0.85, right=2000, wrong=10, judge="good")
    by_people = audit(policy(), 0.85, right=2000, wrong=10)
    assert found.standing == by_people.standing == "within bound"
    assert found.interval.upper > by_people.interval.upper


def test_what_is_decided_is_shown() -> None:
    shown: list[tuple[str, str, float]] = []
    judged = AcceptancePolicy(LEVELS, 0.03, show=lambda t, m, found: shown.append((t, m, found.level)))
    judged.acceptance("t", "m")
    judged.acceptance("t", "m")
    judged.record("t", "m", 0.9, HUMAN, wrong=False)
    judged.acceptance("t", "m")
    assert shown == [("t", "m", 0.8)] * 2
