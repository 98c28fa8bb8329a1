import asyncio
import gc
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.cache.answer import Answer, Hit
from carpool.cache.in_flight import MAX_FAILURES, InFlight, Leader, LeaderLost
from carpool.errors import ContextLengthExceeded, InvalidRequest, WorkerDied
from tests.unit.cache.bag_of_words import answer


def lead(table: InFlight, key: str = "k", *, shared: bool = True, after: LeaderLost | None = None) -> Leader:
    leader = table.lead(key, lambda _: None, shared=shared, request_id="leader", after=after)
    leader.start()
    return leader


async def test_followers_get_the_same_pieces_whenever_they_join() -> None:
    table = InFlight()
    leader = lead(table)
    early, late = table.follow("k"), None
    assert early is not None
    assert early.request_id == "leader"
    leader.publish("One ")
    leader.publish("")
    leader.publish("two ")
    late = table.follow("k")
    assert late is not None
    assert leader.followers == 2
    leader.complete(answer("One two three."))
    for follower in (early, late):
        assert [piece async for piece in follower] == ["One ", "two ", "three."]
        assert follower.answer == answer("One two three.")
    assert (leader.followers, len(table), table.follow("k")) == (0, 0, None)


async def test_a_waiting_follower_is_woken_by_every_piece() -> None:
    table = InFlight()
    leader = lead(table)
    follower = table.follow("k")
    assert follower is not None
    for piece in ("a", "b"):
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        assert not waiting.done()
        leader.publish(piece)
        assert await waiting == piece
    leader.complete(answer("ab"))
    with pytest.raises(StopAsyncIteration):
        await anext(follower)


async def test_the_first_end_counts() -> None:
    completed: list[Answer] = []
    leader = InFlight().lead("k", completed.append)
    leader.complete(answer("a"))
    leader.complete(answer("b"))
    leader.fail(WorkerDied("x"))
    leader.abandon()
    leader.publish("c")
    assert leader.ended
    assert completed == [answer("a")]


async def test_an_error_that_is_the_requests_own_reaches_every_follower() -> None:
    table = InFlight()
    leader = lead(table)
    followers = [table.follow("k"), table.follow("k")]
    error = ContextLengthExceeded("too long", param="messages")
    leader.fail(error)
    for follower in followers:
        assert follower is not None
        with pytest.raises(ContextLengthExceeded, match="too long") as raised:
            await anext(follower)
        assert raised.value.param == "messages"
        assert raised.value is not error


async def test_failures_are_handed_on_until_there_were_too_many() -> None:
    table, lost = InFlight(), None
    for failures in range(1, MAX_FAILURES):
        leader = lead(table, after=lost)
        follower = table.follow("k")
        assert follower is not None
        leader.fail(WorkerDied("gone", retry_after_s=1.0))
        with pytest.raises(LeaderLost) as raised:
            await anext(follower)
        lost = raised.value
        assert lost.failures == failures
    leader = lead(table, after=lost)
    follower = table.follow("k")
    assert follower is not None
    leader.fail(WorkerDied("gone", retry_after_s=1.0))
    with pytest.raises(WorkerDied) as died:
        await anext(follower)
    assert died.value.retry_after_s == 1.0


async def test_leaving_is_no_failure() -> None:
    table, lost = InFlight(), None
    for _ in range(MAX_FAILURES + 1):
        leader = lead(table, after=lost)
        follower = table.follow("k")
        assert follower is not None
        leader.abandon()
        with pytest.raises(LeaderLost) as raised:
            await anext(follower)
        lost = raised.value
        assert lost.failures == 0


async def test_leaving_the_block_ends_the_flight() -> None:
    table = InFlight()
    for error in (None, WorkerDied("x"), asyncio.CancelledError()):
        leader = lead(table)
        try:
            with leader:
                if error is not None:
                    raise error
        except (WorkerDied, asyncio.CancelledError):
            pass
        assert leader.ended
        assert len(table) == 0


async def test_a_leader_that_nobody_holds_is_no_trap() -> None:
    table = InFlight()
    leader = lead(table)
    follower = table.follow("k")
    assert follower is not None
    waiting = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0)
    del leader
    gc.collect()
    with pytest.raises(LeaderLost):
        await waiting
    assert len(table) == 0


async def test_followers_that_left_do_not_count() -> None:
    table = InFlight()
    leader = lead(table)
    closed, cancelled, dropped = table.follow("k"), table.follow("k"), table.follow("k")
    assert closed is not None
    assert cancelled is not None
    assert leader.followers == 3
    closed.close()
    waiting = asyncio.ensure_future(anext(cancelled))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del dropped
    gc.collect()
    assert leader.followers == 0
    leader.abandon()


async def test_the_outcome_of_the_leaders_search_is_shared() -> None:
    table = InFlight()
    leader = table.lead("k", lambda _: None)
    follower = table.follow("k")
    assert follower is not None
    waiting = asyncio.ensure_future(follower.search())
    await asyncio.sleep(0)
    assert not waiting.done()
    hit = Hit(answer(), 0.9)
    leader.found(hit)
    assert await waiting is hit
    assert len(table) == 0

    leader = table.lead("k", lambda _: None)
    follower = table.follow("k")
    assert follower is not None
    leader.abandon()
    with pytest.raises(LeaderLost):
        await follower.search()


async def test_unshared_and_surplus_flights_are_not_joined() -> None:
    table = InFlight(max_flights=1)
    alone = lead(table, shared=False)
    assert table.follow("k") is None
    first, second, surplus = lead(table), lead(table), lead(table, "other")
    assert table.follow("other") is None
    second.complete(answer("second"))
    follower = table.follow("k")
    assert follower is not None
    first.complete(answer("first"))
    assert [piece async for piece in follower] == ["first"]
    alone.abandon()
    surplus.abandon()


FULL = "the whole answer in words "


async def request(table: InFlight, dice: random.Random, attempts: list[int]) -> str:
    """What a gateway does: follow, or lead and meet any fate."""
    lost: LeaderLost | None = None
    while True:
        follower = table.follow("k")
        if follower is not None:
            try:
                if await follower.search() is None:
                    return "".join([piece async for piece in follower])
            except LeaderLost as error:
                lost = error
            continue
        attempts[0] += 1
        with table.lead("k", lambda _: None, after=lost) as leader:
            await asyncio.sleep(0)
            leader.start()
            for word in FULL.split(" ")[:-1]:
                for _ in range(dice.randrange(3)):
                    await asyncio.sleep(0)
                leader.publish(word + " ")
                fate = dice.random()
                if fate < 0.08:
                    raise WorkerDied("died")
                if fate < 0.1:
                    raise InvalidRequest("bad")
                if fate < 0.12:
                    raise KeyError("a bug")
            leader.complete(answer(FULL))
            return FULL


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_chaos_gives_each_request_the_whole_answer_or_one_error(seed: int) -> None:
    dice = random.Random(seed)

    async def main() -> None:
        table, attempts = InFlight(), [0]
        tasks = []
        for _ in range(30):
            tasks.append(asyncio.create_task(request(table, dice, attempts)))
            if dice.random() < 0.5:
                await asyncio.sleep(0)
            if dice.random() < 0.3:
                dice.choice(tasks).cancel()
        async with asyncio.timeout(30):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert result == FULL or isinstance(
                result, WorkerDied | InvalidRequest | KeyError | asyncio.CancelledError
            )
        assert len(table) == 0
        assert attempts[0] <= 30

    asyncio.run(main())
