"""When a worker counts as stuck, tick by tick."""

import asyncio

import pytest

from carpool.worker.config import WorkerConfig
from carpool.worker.protocol import Progress, Stats, Step
from carpool.worker.usage import ModelUsage
from carpool.worker.watchdog import Watchdog

PATIENCE = 60
CONFIG = WorkerConfig(heartbeat_timeout_s=10.0, step_timeout_s=PATIENCE)


@pytest.fixture(autouse=True)
def a_tick_is_a_turn_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.worker.watchdog.TICK_S", 0)


async def test_silence_is_seen_with_and_without_requests() -> None:
    watchdog = Watchdog(CONFIG, ModelUsage())
    assert "sent nothing for 60 s" in await watchdog.stuck()  # it has not come up
    watchdog.hear(Stats(0, []))
    assert "sent nothing for 10 s" in await watchdog.stuck()


async def test_a_heartbeat_is_enough_while_nothing_is_asked() -> None:
    watchdog = Watchdog(CONFIG, ModelUsage())
    stuck = asyncio.create_task(watchdog.stuck())
    for _ in range(10 * PATIENCE):
        watchdog.hear(Stats(7, []))
        await asyncio.sleep(0)
    assert not stuck.done()
    stuck.cancel()


async def test_requests_need_progress() -> None:
    usage = ModelUsage()
    watchdog = Watchdog(CONFIG, usage)
    stuck = asyncio.create_task(watchdog.stuck())
    usage.begin("model")
    for turn in range(10 * PATIENCE):
        watchdog.hear(Stats(turn, []) if turn % 2 else Step("model", []))
        await asyncio.sleep(0)
    assert not stuck.done()
    for _ in range(PATIENCE + 1):
        watchdog.hear(Stats(10 * PATIENCE - 1, []))
        watchdog.hear(Progress("another", "building", 50.0))
        await asyncio.sleep(0)
    assert "taken no step for 60 s, and requests wait" in await stuck
