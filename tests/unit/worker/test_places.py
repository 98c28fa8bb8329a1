"""Places at a model: never more than there are, given back however a call ends."""

import asyncio

import pytest

from carpool.errors import CarpoolError, Overloaded, WorkerDied
from carpool.worker.places import Places
from carpool.worker.protocol import Embed
from tests.unit.worker.echo import idle, read_all, request, started, until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refusal(places: Places, count: int = 1) -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        places.take("a", count)
    return caught.value


def test_places_are_by_model_and_all_or_none() -> None:
    places = Places(4)
    taken = places.take("a", 3)
    assert "has 3 requests already; it takes 4" in refusal(places, 2).message
    assert places.taken("a") == 3
    places.take("b", 4)
    places.take("a")
    refusal(places)
    taken.use()()
    taken.close()
    taken.close()
    places.take("a", 3)
    assert (places.taken("a"), places.taken("b"), places.taken("c")) == (4, 4, 0)


def test_an_idle_model_takes_any_request() -> None:
    places = Places(2)
    places.take("a", 5).close()
    places.take("a", 2)
    refusal(places)


def test_the_time_to_come_back_is_by_the_drain_rate() -> None:
    clock = Clock()
    places = Places(10, clock=clock)
    assert refusal_after(places, clock, ends=0) == 1, "nothing is known yet"
    places = Places(10, clock=clock)
    assert refusal_after(places, clock, ends=5) == pytest.approx(10 * 2), "one ends every 2 s, 10 are there"
    clock.now += 1000
    assert refusal(places).retry_after_s == 60, "it is stuck"


def test_a_quiet_hour_says_nothing_of_how_long_a_burst_takes() -> None:
    clock = Clock()
    places = Places(10, clock=clock)
    for pause_s in (0.0, 3600.0, 3600.0):
        clock.now += pause_s
        one = places.take("a")
        clock.now += 2.0
        one.use()()
    clock.now += 3600
    burst = places.take("a", 10)
    assert refusal(places).retry_after_s == pytest.approx(2.0)
    for _ in range(5):
        clock.now += 3.0
        burst.use()()
        places.take("a")
    assert refusal(places).retry_after_s == pytest.approx((3 * 2 + 10 * 15) / 8)


def test_neither_do_places_that_were_not_used() -> None:
    clock = Clock()
    places = Places(10, clock=clock)
    done = places.take("a")
    clock.now += 2.0
    done.use()()
    held = places.take("a", 9)
    clock.now += 2.0
    for _ in range(100):
        places.take("a").close()
    held.use()()
    places.take("a", 2)
    assert refusal(places).retry_after_s == pytest.approx((2 + 9 * 2) / 2)


def test_unused_places_add_nothing_to_the_time_however_long_they_were_held() -> None:
    clock = Clock()
    places = Places(2, clock=clock)
    for _ in range(20):
        done = places.take("a")
        clock.now += 2.0
        done.use()()
        for _ in range(50):
            unused = places.take("a")
            clock.now += 0.05
            unused.close()
    places.take("a", 2)
    assert refusal(places).retry_after_s == pytest.approx(2.0)


def test_many_places_that_end_together_are_one_end() -> None:
    clock = Clock()
    places = Places(64, clock=clock)
    for _ in range(5):
        call = places.take("a", 64)
        clock.now += 30.0
        call.use(64)()
    places.take("a", 64)
    assert refusal(places).retry_after_s == pytest.approx(30.0)


def refusal_after(places: Places, clock: Clock, ends: int) -> float | None:
    taken = [places.take("a") for _ in range(10)]
    for _ in range(ends):
        taken.pop().use()()
        taken.append(places.take("a"))
        clock.now += 2.0
    return refusal(places).retry_after_s


async def test_beyond_the_bound_nothing_is_sent_to_the_worker() -> None:
    async with started(max_requests_per_model=3) as (client, lives):
        lives.last.chat.going.clear()
        first = await client.generate(request("one", n=2))
        second = await client.generate(request("two"))
        for refused in (client.generate(request("three")), client.generate(request("four", n=2))):
            with pytest.raises(Overloaded):
                await refused
        assert client.open_requests == lives.last.session.open_calls == 2
        with pytest.raises(Overloaded):
            client.check_room("echo", 1)
        client.check_room("embed", 1)
        await client.embed(Embed(0, "embed", ["other models have their own"]))
        await first.aclose()
        client.check_room("echo", 2)
        third = await client.generate(request("three", n=2))
        lives.last.chat.going.set()
        assert await read_all(second) == ["two"]
        assert await read_all(third) == ["three", "three"]
        await idle(client, lives)
        assert client._places.taken("echo") == client._places.taken("embed") == 0


async def test_a_death_and_a_cancellation_give_places_back() -> None:
    async with started(max_requests_per_model=3) as (client, lives):
        lives.last.chat.going.clear()
        generation = await client.generate(request("hello"))
        lives.last.chat.admitting.clear()
        waiting = asyncio.create_task(client.generate(request("waits")))
        leaving = asyncio.create_task(client.generate(request("leaves")))
        await until(lambda: client._places.taken("echo") == 3)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert client._places.taken("echo") == 2
        lives.last.kill()
        with pytest.raises(WorkerDied):
            await read_all(generation)
        with pytest.raises(WorkerDied):
            await waiting
        assert client._places.taken("echo") == 0


async def test_a_refused_request_has_no_place() -> None:
    async with started() as (client, lives):
        with pytest.raises(CarpoolError):
            await client.generate(request("hello", "embed"))
        with pytest.raises(CarpoolError):
            await client.embed(Embed(0, "echo", ["hello"]))
        await idle(client, lives)
        assert client._places.taken("embed") == client._places.taken("echo") == 0
