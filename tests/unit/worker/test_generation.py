"""A generation whose deltas are taken as they come."""

import asyncio

import pytest

from carpool.errors import WorkerDied
from carpool.worker.generation import Generation
from carpool.worker.protocol import StepEntry
from tests.unit.worker.echo import byte_tokenizer


def generation(n: int = 1) -> Generation:
    return Generation(byte_tokenizer(), n, (), on_close=lambda: None)


def entry(text: str, index: int = 0, finish_reason: str | None = None) -> StepEntry:
    return StepEntry(1, index, byte_tokenizer().encode(text), None, finish_reason)


async def test_all_that_came_is_taken_together() -> None:
    running = generation(2)
    for each in (entry("a"), entry("b", 1), entry("c")):
        running.feed(each)
    assert [(delta.index, delta.text) for delta in await running.take()] == [(0, "a"), (1, "b"), (0, "c")]
    taking = asyncio.create_task(running.take())
    await asyncio.sleep(0)
    assert not taking.done()
    running.feed(entry("d", 0, "stop"))
    running.feed(entry("e", 1, "stop"))
    assert [delta.text for delta in await taking] == ["d", "e"]
    assert await running.take() == []


async def test_what_came_before_an_error_is_taken_first() -> None:
    running = generation()
    running.feed(entry("a"))
    running.fail(WorkerDied("gone"))
    assert [delta.text for delta in await running.take()] == ["a"]
    with pytest.raises(WorkerDied):
        await running.take()


async def test_closing_ends_who_waits() -> None:
    running = generation()
    taking = asyncio.create_task(running.take())
    await asyncio.sleep(0)
    await running.aclose()
    assert await taking == []
