"""A generation whose deltas are taken as they come."""

import asyncio
from collections.abc import Sequence

import pytest

from carpool.errors import WorkerDied
from carpool.worker.generation import Delta, Generation
from carpool.worker.protocol import StepEntry
from carpool.worker.rounds import Rounds
from tests.unit.worker.echo import byte_tokenizer


def generation(n: int = 1, stop: Sequence[str] = (), min_tokens: int = 0) -> Generation:
    return Generation(
        byte_tokenizer(), n, stop, on_close=lambda: None, rounds=Rounds(), min_tokens=min_tokens
    )


def entry(text: str, index: int = 0, finish_reason: str | None = None) -> StepEntry:
    return StepEntry(1, index, byte_tokenizer().encode(text), None, finish_reason)


async def test_what_comes_together_is_delivered_together() -> None:
    running = generation(2)
    delivered: list[list[str]] = []
    for each in (entry("a"), entry("b", 1), entry("c")):
        running.feed(each)
    delivery = asyncio.create_task(
        running.deliver(lambda deltas: delivered.append([f"{delta.index}{delta.text}" for delta in deltas]))
    )
    await asyncio.sleep(0)
    assert delivered == [["0a", "1b", "0c"]]
    running.feed(entry("d", 0, "stop"))
    assert len(delivered) == 1
    await asyncio.sleep(0)
    running.feed(entry("e", 1, "stop"))
    await delivery
    assert delivered[1:] == [["0d"], ["1e"]]


async def test_what_came_before_an_error_is_delivered_first() -> None:
    for begun in (False, True):
        running = generation()
        delivered: list[Delta] = []
        delivery = asyncio.create_task(running.deliver(delivered.extend))
        if begun:
            await asyncio.sleep(0)
        running.feed(entry("a"))
        running.fail(WorkerDied("gone"))
        with pytest.raises(WorkerDied):
            await delivery
        assert [delta.text for delta in delivered] == ["a"]


async def test_closing_ends_a_delivery() -> None:
    running = generation()
    delivery = asyncio.create_task(running.deliver(lambda _: None))
    await asyncio.sleep(0)
    await running.aclose()
    await delivery


async def test_a_reader_that_fails_ends_its_own_delivery() -> None:
    def fail(deltas: list[Delta]) -> None:
        raise ZeroDivisionError(len(deltas))

    running = generation()
    delivery = asyncio.create_task(running.deliver(fail))
    await asyncio.sleep(0)
    running.feed(entry("a"))
    running.feed(entry("b"))
    with pytest.raises(ZeroDivisionError, match="2"):
        await delivery
    running.feed(entry("c", finish_reason="stop"))
    assert [delta.text async for delta in running] == ["c"]


async def test_others_get_their_turn_while_much_is_delivered() -> None:
    running = generation()
    for _ in range(1000):
        running.feed(entry("a"))
    running.feed(entry("b", finish_reason="stop"))
    delivered: list[Delta] = []
    delivery = asyncio.create_task(running.deliver(delivered.extend))
    await asyncio.sleep(0)
    assert len(delivered) < 100
    await delivery
    assert len(delivered) == 1001


@pytest.mark.parametrize("pieces", [["abcabc"], ["ab", "ca", "bc"], list("abcabc"), ["abca", "bc"]], ids=str)
async def test_a_stop_string_is_looked_for_after_min_tokens(pieces: list[str]) -> None:
    running = generation(stop=["b"], min_tokens=3)
    is_to_be_stopped = [running.feed(entry(piece)) for piece in pieces]
    assert any(is_to_be_stopped)
    deltas = [delta async for delta in running]
    assert "".join(delta.text for delta in deltas) == "abca"
    assert deltas[-1].finish_reason == "stop"


async def test_a_stop_string_may_begin_within_min_tokens() -> None:
    running = generation(stop=["bc"], min_tokens=2)
    assert [running.feed(entry(piece)) for piece in "abc"] == [False, False, True]
    assert "".join([delta.text async for delta in running]) == "ab"


async def test_a_text_that_ends_before_min_tokens_is_whole() -> None:
    running = generation(stop=["b"], min_tokens=9)
    running.feed(entry("abc"))
    running.feed(entry("b", finish_reason="length"))
    assert "".join([delta.text async for delta in running]) == "abcb"
