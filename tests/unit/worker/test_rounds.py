"""Rounds, and the pauses behind long ones."""

import asyncio
from collections.abc import Callable

import pytest

from carpool.worker.rounds import Rounds


class Watch:
    """A clock that stands still unless work is said to take time."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, seconds: float) -> Callable[[], None]:
        def take_time() -> None:
            self.now_s += seconds

        return take_time


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], None]]]:
    """Every (seconds, callback) that the event loop was asked to wait for; it calls none of them."""
    asked: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(
        asyncio.BaseEventLoop, "call_later", lambda _loop, delay, call, *_a, **_k: asked.append((delay, call))
    )
    return asked


async def test_who_joins_meanwhile_is_in_the_next_round(
    pauses: list[tuple[float, Callable[[], None]]],
) -> None:
    rounds = Rounds()
    called: list[str] = []

    def join_again() -> None:
        called.append("first")
        rounds.join(lambda: called.append("again"))

    rounds.join(join_again)
    rounds.join(lambda: called.append("second"))
    assert not called
    await asyncio.sleep(0)
    assert called == ["first", "second"]
    await asyncio.sleep(0)
    assert called == ["first", "second", "again"]
    assert not pauses


async def test_a_long_round_is_followed_by_a_pause_twice_as_long(
    pauses: list[tuple[float, Callable[[], None]]],
) -> None:
    watch = Watch()
    rounds = Rounds(watch)
    called: list[str] = []
    for seconds in (0.003, 0.004):
        rounds.join(watch.work(seconds))
    for _ in range(3):
        await asyncio.sleep(0)
    watch.now_s += 0.001
    for name in "ab":
        rounds.join(lambda name=name: called.append(name))  # type: ignore[misc]
    await asyncio.sleep(0)
    assert not called
    [(pause_s, call)] = pauses
    assert pause_s == pytest.approx(0.013)
    call()
    assert called == ["a", "b"]


async def test_no_pause_is_longer_than_a_tenth_of_a_second(
    pauses: list[tuple[float, Callable[[], None]]],
) -> None:
    watch = Watch()
    rounds = Rounds(watch)
    rounds.join(watch.work(3.0))
    for _ in range(3):
        await asyncio.sleep(0)
    rounds.join(watch.work(0.0))
    assert [pause_s for pause_s, _ in pauses] == [pytest.approx(0.1)]


async def test_after_the_pause_nobody_waits(pauses: list[tuple[float, Callable[[], None]]]) -> None:
    watch = Watch()
    rounds = Rounds(watch)
    rounds.join(watch.work(0.010))
    for _ in range(3):
        await asyncio.sleep(0)
    watch.now_s += 0.020
    called: list[str] = []
    rounds.join(lambda: called.append("a"))
    await asyncio.sleep(0)
    assert called == ["a"]
    assert not pauses


async def test_a_short_round_is_followed_by_no_pause(
    pauses: list[tuple[float, Callable[[], None]]],
) -> None:
    watch = Watch()
    rounds = Rounds(watch)
    called: list[str] = []
    rounds.join(watch.work(0.0015))
    for _ in range(3):
        await asyncio.sleep(0)
    rounds.join(lambda: called.append("a"))
    await asyncio.sleep(0)
    assert called == ["a"]
    assert not pauses
