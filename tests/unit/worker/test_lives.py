"""Workers that die, do not start, or are stopped while they work; on a real session over a socket pair."""

import asyncio
import contextlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpool.errors import Draining, InvalidRequest, ModelFailed, ModelLoading, WorkerDied
from carpool.worker import protocol
from carpool.worker.client import WorkerClient
from carpool.worker.config import WorkerConfig
from carpool.worker.generation import Generation
from carpool.worker.process import Life
from tests.unit.worker.echo import CHAT, EMBED, Lives, idle, read_all, request, settled, started, until


async def test_a_death_ends_every_request_once_and_the_next_life_serves() -> None:
    async with started() as (client, lives):
        first = lives.last
        first.chat.going.clear()
        first.encoder.going.clear()
        readers = [
            asyncio.create_task(read_all(await client.generate(request(f"prompt {i}")))) for i in range(50)
        ]
        embedding = asyncio.create_task(client.embed(protocol.Embed(0, "embed", ["abc"])))
        first.chat.admitting.clear()
        waiting = asyncio.create_task(client.generate(request("not accepted yet")))
        await until(lambda: first.session.open_calls == 52)
        first.kill()
        outcomes = await asyncio.gather(*readers, embedding, waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [WorkerDied] * 52
        assert all(outcome.retry_after_s for outcome in outcomes if isinstance(outcome, WorkerDied))
        assert len({id(outcome) for outcome in outcomes}) == 52  # each its own, with its own traceback
        with pytest.raises(WorkerDied):
            await client.generate(request("too early"))
        await settled(client)
        assert await read_all(await client.generate(request("again"))) == ["again"]
        assert lives.last is not first
        await idle(client, lives)


async def test_what_was_finished_before_a_death_stays_readable() -> None:
    async with started() as (client, lives):
        generation = await client.generate(request("done"))
        await idle(client, lives)
        lives.last.kill()
        await until(lambda: client.resolve("echo").phase == "restarting")
        assert await read_all(generation) == ["done"]
        await generation.aclose()


async def test_garbage_from_the_worker_ends_its_life() -> None:
    async with started(EMBED) as (client, lives):
        lives.last.encoder.going.clear()
        embedding = asyncio.create_task(client.embed(protocol.Embed(0, "embed", ["abc"])))
        await until(lambda: lives.last.session.open_calls == 1)
        lives.last.send_garbage()
        with pytest.raises(WorkerDied):
            await embedding
        await settled(client)
        assert len(lives.all) == 2


@pytest.fixture
def quick_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of the time between two heartbeats, and between two looks at them."""
    monkeypatch.setattr("carpool.worker.watchdog.TICK_S", 0.001)
    monkeypatch.setattr("carpool.worker.session.HEARTBEAT_S", 0.001)


@pytest.mark.usefixtures("quick_watchdog")
async def test_a_worker_without_a_heartbeat_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    async with started(EMBED) as (client, lives):
        stuck = lives.last
        stuck.freeze()
        embedding = asyncio.create_task(client.embed(protocol.Embed(0, "embed", ["abc"])))
        with pytest.raises(WorkerDied) as refused:
            await embedding
        assert refused.value.retryable
        assert stuck.killed
        await settled(client)
        assert (await client.embed(protocol.Embed(0, "embed", ["abc"]))).tokens == [3]
    assert "sent nothing for 30 s" in caplog.text


@pytest.mark.usefixtures("quick_watchdog")
async def test_a_worker_that_takes_no_step_while_requests_wait_is_restarted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with started(CHAT, step_timeout_s=60.0) as (client, lives):
        stuck = lives.last
        stuck.chat.going.clear()
        with pytest.raises(WorkerDied):
            await read_all(await client.generate(request("hello")))
        assert stuck.killed
        await settled(client)
        assert await read_all(await client.generate(request("again"))) == ["again"]
    assert "echo has taken no step for 60 s" in caplog.text


@pytest.mark.usefixtures("quick_watchdog")
async def test_traffic_does_not_hide_an_engine_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    async with started(step_timeout_s=60.0) as (client, lives):
        stuck = lives.last
        stuck.chat.going.clear()
        hanging = await client.generate(request("hello"))
        with contextlib.suppress(WorkerDied, ModelLoading):
            while not stuck.killed:
                await client.embed(protocol.Embed(0, "embed", ["abc"]))
                with pytest.raises(InvalidRequest):
                    await client.generate(request("x" * 1000))
                await (await client.generate(request("left at once"))).aclose()
        with pytest.raises(WorkerDied):
            await read_all(hanging)
    assert "echo has taken no step for 60 s" in caplog.text


@pytest.mark.usefixtures("quick_watchdog")
async def test_a_worker_with_a_broken_engine_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    async with started() as (client, lives):
        broken = lives.last
        broken.chat.going.clear()
        running = await client.generate(request("hello"))
        broken.chat.healthy = False
        with pytest.raises(WorkerDied) as ended:
            await read_all(running)
        assert ended.value.retryable
        assert broken.killed
        await settled(client)
        assert await read_all(await client.generate(request("again"))) == ["again"]
    assert "the engine of echo is broken" in caplog.text


async def test_a_fault_of_the_gateway_ends_one_life_only(caplog: pytest.LogCaptureFixture) -> None:
    async with started(CHAT) as (client, lives):
        faulty = lives.last
        faulty.chat.going.clear()
        running = await client.generate(request("hello"))
        [call_id] = faulty.session._open
        faulty.session._writer.write(protocol.Step("echo", [protocol.StepEntry(call_id, 9, [1], None, None)]))
        with pytest.raises(WorkerDied):
            await read_all(running)
        await settled(client)
        assert await read_all(await client.generate(request("again"))) == ["again"]
    assert "IndexError" in caplog.text


async def test_faults_of_the_gateway_without_end_give_the_worker_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def spawn(config: WorkerConfig) -> Life:
        raise ZeroDivisionError("a bug")

    config = WorkerConfig(models=(CHAT,), restart_attempts=2, restart_backoff_s=0.0)
    async with WorkerClient(config, spawn=spawn) as client:
        async with asyncio.timeout(30):
            assert "ZeroDivisionError('a bug')" in await client.gave_up()
        assert client.resolve("echo").phase == "failed"
    assert "Traceback" in caplog.text


async def test_a_worker_that_never_comes_up_is_given_up() -> None:
    attempts = 0

    async def spawn(config: WorkerConfig) -> Life:
        nonlocal attempts
        attempts += 1
        raise OSError("out of processes")

    config = WorkerConfig(models=(CHAT,), restart_attempts=3, restart_backoff_s=0.0)
    async with WorkerClient(config, spawn=spawn) as client:
        await settled(client)
        assert attempts == 3
        with pytest.raises(ModelFailed, match="out of processes"):
            await client.generate(request("hello"))


async def test_deaths_while_loading_count_until_a_life_comes_up() -> None:
    lives = Lives()
    lives.loading.clear()
    config = WorkerConfig(models=(CHAT,), restart_attempts=3, restart_backoff_s=0.0)
    async with WorkerClient(config, spawn=lives) as client:
        for _ in range(2):
            await until(lambda: lives.live and lives.last.session.open_calls == 1)
            lives.last.kill()
        await until(lambda: lives.live)
        lives.loading.set()
        await settled(client)
        for _ in range(4):  # lives that came up may die for ever
            lives.last.kill()
            await until(lambda: lives.live)
            await settled(client)
        assert len(lives.all) == 7
        assert client.resolve("echo").phase == "ready"


async def test_the_wait_doubles_with_every_failed_life(caplog: pytest.LogCaptureFixture) -> None:
    async def spawn(config: WorkerConfig) -> Life:
        raise OSError("no")

    config = WorkerConfig(
        models=(CHAT,), restart_attempts=5, restart_backoff_s=0.001, restart_backoff_max_s=0.004
    )
    async with WorkerClient(config, spawn=spawn) as client:
        await settled(client)
    told = [record.args for record in caplog.records if isinstance(record.args, tuple)]
    delays = [args[1] for args in told if len(args) == 2]
    assert delays == [0.001, 0.002, 0.004, 0.004]


async def test_a_stop_finishes_what_runs_and_refuses_what_comes() -> None:
    async with started() as (client, lives):
        lives.last.chat.going.clear()
        reader = asyncio.create_task(read_all(await client.generate(request("hello"))))
        stop = asyncio.create_task(client.stop())
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await client.generate(request("too late"))
        lives.last.chat.going.set()
        assert await reader == ["hello"]
        await stop


async def test_a_stop_ends_what_does_not_finish_in_time() -> None:
    async with started() as (client, lives):
        lives.last.chat.going.clear()
        reader = asyncio.create_task(read_all(await client.generate(request("hello"))))
        await client.stop(drain_s=0)
        with pytest.raises(Draining):
            await reader
        assert client.open_requests == 0


@pytest.mark.parametrize("turns", range(20))
async def test_a_stop_in_the_moment_of_a_death(turns: int) -> None:
    async with asyncio.timeout(30):
        async with started(CHAT, restart_backoff_s=1.0) as (client, lives):
            lives.loading.clear()  # a next life would wait for ever
            lives.last.kill()
            for _ in range(turns):
                await asyncio.sleep(0)
        assert client.open_requests == 0
        assert all(life.ended for life in lives.all)


async def test_a_stop_while_models_load() -> None:
    lives = Lives()
    lives.loading.clear()
    async with asyncio.timeout(30):
        async with WorkerClient(WorkerConfig(models=(CHAT, EMBED)), spawn=lives) as client:
            await until(lambda: lives.live and lives.last.session.open_calls == 2)
        assert client.open_requests == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "close", "cancel", "stop string", "embed", "kill"]), st.integers(0, 6)
        ),
        max_size=25,
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_happens_every_request_has_one_outcome(events: list[tuple[str, int]]) -> None:
    outcomes = asyncio.run(_chaos(events))
    asked = Counter(event for event, _ in events)
    assert outcomes.total() == len(events) - asked["kill"]
    assert set(outcomes) <= {"done", "closed", "cancelled", "error"}
    if not asked["kill"]:
        assert outcomes["error"] == 0


async def _chaos(events: list[tuple[str, int]]) -> Counter[str]:
    """Start a request per event, with so many turns of the event loop in between."""
    tasks: list[asyncio.Task[str]] = []
    async with started() as (client, lives):
        for event, turns in events:
            if event == "kill":
                lives.last.kill()
            else:
                tasks.append(asyncio.create_task(_one_request(client, event)))
            for _ in range(turns):
                await asyncio.sleep(0)
            if event == "cancel":
                tasks[-1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: lives.live)
        await settled(client)
        assert await read_all(await client.generate(request("at last"))) == ["at last"]
        await idle(client, lives)
        assert not lives.last.chat.running
    return Counter("cancelled" if isinstance(r, asyncio.CancelledError) else str(r) for r in results)


async def _one_request(client: WorkerClient, event: str) -> str:
    try:
        if event == "embed":
            await client.embed(protocol.Embed(0, "embed", ["abc"]))
            return "done"
        stop = ["STOP"] if event == "stop string" else []
        generation: Generation = await client.generate(request("one STOP two", n=2), stop=stop)
        if event == "close":
            await anext(generation)
            await generation.aclose()
            return "closed"
        try:
            texts = await read_all(generation)
        finally:
            await generation.aclose()
        assert texts == ["one ", "one "] if stop else ["one STOP two"] * 2
    except (WorkerDied, ModelLoading):
        return "error"
    return "done"
