"""When a worker counts as stuck or broken, tick by tick."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from carpool.worker.config import WorkerConfig
from carpool.worker.protocol import (
    Accepted,
    EngineStatus,
    Error,
    FromWorker,
    Progress,
    Result,
    Stats,
    Step,
    StepEntry,
)
from carpool.worker.usage import ModelUsage
from carpool.worker.watchdog import Watchdog

PATIENCE = 60
CONFIG = WorkerConfig(heartbeat_timeout_s=10.0, step_timeout_s=PATIENCE)


@pytest.fixture(autouse=True)
def a_tick_is_a_turn_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.worker.watchdog.TICK_S", 0)


def stats(
    chat: int, *, embed: int = 0, owes_step: bool = True, embed_owes: bool = False, healthy: bool = True
) -> Stats:
    """A heartbeat of a worker with two models, whose engines have taken so many steps."""
    engines = {"chat": EngineStatus(chat, owes_step, healthy), "embed": EngineStatus(embed, embed_owes, True)}
    return Stats(engines, [])


class Watched:
    """A watchdog and what it has found so far."""

    def __init__(self) -> None:
        self.usage = ModelUsage()
        self._watchdog = Watchdog(CONFIG, self.usage)
        self.fault = asyncio.create_task(self._watchdog.fault())

    async def tick(self, *messages: FromWorker) -> None:
        """The worker says this, and the watchdog looks."""
        for message in messages:
            self._watchdog.hear(message)
        await asyncio.sleep(0)

    async def reason(self) -> str:
        """What it finds, without another tick."""
        async with asyncio.timeout(10):
            return await self.fault


@contextmanager
def watched() -> Iterator[Watched]:
    it = Watched()
    yield it
    it.fault.cancel()


async def test_silence_is_seen_with_and_without_requests() -> None:
    watchdog = Watchdog(CONFIG, ModelUsage())
    assert "sent nothing for 60 s" in await watchdog.fault()  # it has not come up
    watchdog.hear(Stats({}, []))
    assert "sent nothing for 10 s" in await watchdog.fault()


async def test_a_heartbeat_is_enough_while_nothing_is_asked() -> None:
    with watched() as worker:
        for _ in range(10 * PATIENCE):
            await worker.tick(stats(7, owes_step=False))
        assert not worker.fault.done()


async def test_an_engine_that_owes_a_step_must_take_one() -> None:
    with watched() as worker:
        worker.usage.begin("chat")
        for turn in range(10 * PATIENCE):
            await worker.tick(stats(turn // (PATIENCE - 1)))
        assert not worker.fault.done()
        for _ in range(PATIENCE + 1):
            await worker.tick(stats(10), Progress("another", "building", 50.0))
        assert "chat has taken no step for 60 s, and has work" in await worker.reason()


@pytest.mark.parametrize(
    "answer",
    [
        Accepted(1, 3),
        Error(1, "invalid_request", "The prompt is empty."),
        Error(1, "deadline_exceeded", "Too late."),
        Step("chat", [StepEntry(1, 0, [], None, "cancelled")]),
        Result(1, 1, memoryview(b"1234"), [1]),
    ],
    ids=["accepted", "refused", "too late", "cancelled", "of another model"],
)
async def test_no_answer_hides_an_engine_that_hangs(answer: FromWorker) -> None:
    with watched() as worker:
        worker.usage.begin("chat")
        for turn in range(PATIENCE + 1):
            await worker.tick(stats(5, embed=turn, embed_owes=True), answer)
        assert "chat has taken no step" in await worker.reason()


async def test_an_engine_hangs_also_when_its_requests_have_ended() -> None:
    with watched() as worker:
        for _ in range(PATIENCE + 1):
            await worker.tick(stats(5))
        assert "chat has taken no step" in await worker.reason()


async def test_idle_times_do_not_add_up() -> None:
    with watched() as worker:
        for turn in range(10 * PATIENCE):
            await worker.tick(stats(5, owes_step=turn % (PATIENCE // 2) != 0))
        assert not worker.fault.done()


async def test_a_model_that_is_loaded_again_begins_anew() -> None:
    with watched() as worker:
        for _ in range(3):
            for _ in range(PATIENCE - 2):
                await worker.tick(stats(0))
            await worker.tick(Stats({}, []))
        assert not worker.fault.done()


async def test_refusals_are_answers_while_no_engine_owes_a_step() -> None:
    with watched() as worker:
        worker.usage.begin("chat")
        for turn in range(10 * PATIENCE):
            refusal = [] if turn % (PATIENCE - 1) else [Error(1, "invalid_request", "The prompt is empty.")]
            await worker.tick(stats(5, owes_step=False), *refusal)
        assert not worker.fault.done()


async def test_requests_that_reach_no_engine_are_seen() -> None:
    with watched() as worker:
        worker.usage.begin("chat")
        for _ in range(PATIENCE + 1):
            await worker.tick(stats(5, owes_step=False))
        assert "answered nothing for 60 s, and requests wait" in await worker.reason()


async def test_a_broken_engine_is_seen_at_once() -> None:
    with watched() as worker:
        await worker.tick(stats(5))
        await worker.tick(stats(5, healthy=False))
        assert await worker.reason() == "the engine of chat is broken"
