import asyncio
import logging
from pathlib import Path

import pytest

from carpool.cache.acceptance import AcceptancePolicy, Level
from carpool.cache.audit import Audits
from carpool.cache.judge import Case, Judge, JudgeQuality, ModelJudge
from carpool.errors import NotFound
from carpool.telemetry import Registry
from tests.unit.worker.echo import until

LEVELS = [Level(0.5, 0.02)]
GOOD = JudgeQuality(caught=950, wrong=1000, passed=990, right=1000)


def case(name: str = "1") -> Case:
    return Case(name, "t", "m", "How do bees fly?", "How does a bee fly?", "With wings.", 0.9, served=True)


def opened(
    path: Path | None = None,
    judge: Judge | None = None,
    rate: float = 1.0,
    draw: float = 0.5,
    calibration: str = "c1",
    embedder: str = "e1",
) -> tuple[Audits, AcceptancePolicy]:
    policy = AcceptancePolicy(LEVELS, 0.03, {judge.name: judge.quality} if judge else {})
    audits = Audits(
        policy,
        calibration=calibration,
        embedder=embedder,
        rate=rate,
        registry=Registry(),
        path=path,
        judge=judge,
        draw=lambda: draw,
    )
    audits.start()
    return audits, policy


@pytest.mark.parametrize(
    ("rate", "draw", "sampled"), [(0.0, 0.0, False), (0.1, 0.1, False), (0.1, 0.09, True)]
)
async def test_a_share_of_the_cases_is_sampled(rate: float, draw: float, sampled: bool) -> None:
    audits, _ = opened(rate=rate, draw=draw)
    assert audits.sampled() is sampled


async def test_people_judge_each_case_once_and_the_verdict_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    audits, policy = opened(path)
    audits.offer(case("1"))
    audits.offer(case("2"))
    assert [each.id for each in audits.pending()] == ["1", "2"]
    audits.judge("1", wrong=True)
    audits.judge("2", wrong=False)
    assert audits.pending() == []
    with pytest.raises(NotFound, match="'1'"):
        audits.judge("1", wrong=False)
    assert (policy.acceptance("t", "m").audits, policy.acceptance("t", "m").wrong) == (2, 1)
    assert "bee" not in path.read_text()
    _, again = opened(path)
    assert (again.acceptance("t", "m").audits, again.acceptance("t", "m").wrong) == (2, 1)


async def test_unreadable_verdicts_are_skipped_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "verdicts.jsonl"
    audits, _ = opened(path)
    audits.offer(case())
    audits.judge("1", wrong=False)
    with path.open("ab") as file:
        file.write(b'{"tenant": 5}\n\xff\xfe\n{"time"')
    with caplog.at_level(logging.ERROR):
        _, policy = opened(path)
    assert policy.acceptance("t", "m").audits == 1
    assert caplog.messages == [f"cache: skipped 3 unreadable verdicts of {path}"]


async def test_verdicts_on_another_calibration_or_embedder_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "verdicts.jsonl"
    for name, calibration, embedder in (("1", "c1", "e1"), ("2", "c2", "e1"), ("3", "c1", "e2")):
        audits, policy = opened(path, calibration=calibration, embedder=embedder)
        assert policy.acceptance("t", "m").audits == 0
        audits.offer(case(name))
        audits.judge(name, wrong=True)
        assert policy.acceptance("t", "m").audits == 1
    with caplog.at_level(logging.INFO):
        _, policy = opened(path)
    assert policy.acceptance("t", "m").audits == 1
    assert caplog.messages == ["cache: 2 verdicts are of another calibration or embedder"]


class Plug:
    """A judge that says `wrong` of everything, one case for each time it may."""

    name = "plug"
    quality = GOOD

    def __init__(self, *, wrong: bool) -> None:
        self.may = asyncio.Semaphore(0)
        self.asked: list[str] = []
        self._wrong = wrong

    async def is_wrong(self, case: Case) -> bool:
        self.asked.append(case.id)
        await self.may.acquire()
        return self._wrong


async def test_a_case_counts_once_and_as_people_say(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    plug = Plug(wrong=True)
    audits, policy = opened(path, judge=plug)

    def counted() -> tuple[int, int]:
        found = policy.acceptance("t", "m")
        return found.audits, found.wrong

    for name in ("1", "2", "3"):
        audits.offer(case(name))
    plug.may.release()
    await until(lambda: plug.asked == ["1", "2"])
    assert counted() == (1, 1)
    audits.judge("1", wrong=False)  # after the plug
    assert counted() == (1, 0)
    audits.judge("2", wrong=False)  # while the plug ponders
    audits.judge("3", wrong=True)  # before the plug has heard of it
    assert counted() == (3, 1)
    audits.offer(case("4"))
    for _ in range(2):
        plug.may.release()
    await until(lambda: counted() == (4, 2))
    assert plug.asked == ["1", "2", "4"]
    await audits.stop()
    _, policy = opened(path, judge=plug)
    assert counted() == (4, 2)


async def test_a_verdict_that_cannot_be_written_counts_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audits, policy = opened(tmp_path / "no" / "such" / "directory")
    audits.offer(case())
    audits.judge("1", wrong=False)
    assert policy.acceptance("t", "m").audits == 1
    assert "kept in memory only" in caplog.text


async def test_cases_that_nobody_judges_do_not_pile_up() -> None:
    audits, _ = opened()
    for index in range(1200):
        audits.offer(case(str(index)))
    assert [each.id for each in audits.pending()[:1]] == ["200"]
    assert len(audits.pending()) == 1000


async def test_a_plug_judges_behind_the_requests_and_its_failures_cost_nothing() -> None:
    replies = iter(["no", "what?", "boom", "yes"])
    done = asyncio.Event()

    async def say(prompt: str) -> str:
        reply = next(replies)
        if reply == "yes":
            done.set()
        if reply == "boom":
            raise RuntimeError(reply)
        return reply

    audits, policy = opened(judge=ModelJudge("a-model", GOOD, say))
    for name in "1234":
        audits.offer(case(name))
    await done.wait()
    await asyncio.sleep(0)
    await audits.stop()
    found = policy.acceptance("t", "m")
    assert (found.audits, found.wrong) == (2, 1)
