"""Gateways that share a real server."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from carpool.cache.entry import Entry, Record
from carpool.cache.redis import RedisStore
from carpool.cache.selector import Selector
from tests.unit.cache.bag_of_words import answer, ask
from tests.unit.cache.listener import HoldingListener
from tests.unit.cache.redis_server import RedisServer
from tests.unit.cache.test_service import QUESTION, SIMILAR, UNLIKE, Bench
from tests.unit.worker.echo import until

TTL_S = 3600.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@asynccontextmanager
async def gateway(server: RedisServer, embedder: str = "e1", **settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(RedisStore(server.url, embedder, TTL_S), ttl_s=TTL_S, **settings)
    bench.clock.now = time.time()  # Redis has no other clock
    async with bench.cache:
        yield bench


def entries(bench: Bench) -> int:
    return bench.cache.stats().entries


def names(server: RedisServer) -> list[bytes]:
    with redis.Redis(port=server.port) as client:
        return sorted(client.scan_iter("carpool:1:entry:*"))


def damage(server: RedisServer, name: bytes, data: bytes) -> None:
    """Put something in an entry's place and tell of it as a gateway does."""
    with redis.Redis(port=server.port) as client:
        client.set(name, data)
        key = bytes.fromhex(name.rpartition(b":")[2].decode())
        client.xadd("carpool:1:log", {"by": "x", "kept": 1, "key": key})


async def test_gateways_share_answers_by_repetition_and_by_meaning(server: RedisServer) -> None:
    async with gateway(server) as one, gateway(server) as two:
        await one.learn(QUESTION, "Jupiter.")
        await until(lambda: entries(two) == 1)
        exact, semantic = await two.look(QUESTION), await two.look(SIMILAR)
        assert (exact.outcome, semantic.outcome) == ("exact", "semantic")
        assert exact.answer is not None
        assert exact.answer.text == "Jupiter."
        await two.learn(UNLIKE)
        await until(lambda: entries(one) == 2)
    async with gateway(server) as late:
        assert (await late.look(SIMILAR)).outcome == "semantic"
        assert entries(late) == 2


async def test_an_invalidation_reaches_the_others(server: RedisServer) -> None:
    async with gateway(server) as one, gateway(server) as two:
        for tenant in ("red", "blue"):
            await one.learn(QUESTION, tenant=tenant)
        await until(lambda: entries(two) == 2)
        assert await two.cache.invalidate(Selector(tenant="red")) == 1
        assert len(names(server)) == 1
        await until(lambda: entries(one) == 1)
        assert (await one.look(QUESTION, tenant="red")).outcome == "miss"
        assert one.counted("carpool_cache_removed_total") == {("elsewhere",): 1}


async def test_the_newer_answer_replaces_the_older_one_everywhere(server: RedisServer) -> None:
    async with gateway(server) as one, gateway(server) as two:
        await one.learn(QUESTION, "Old.")
        await until(lambda: entries(two) == 1)
        two.clock.now += 1
        await two.learn(QUESTION, "New.", no_cache=True)

        def text(bench: Bench) -> str:
            record = bench.cache.keeper.record(ask(QUESTION, config=bench.config).exact)
            return record.entry.answer.text if record else ""

        await until(lambda: text(one) == "New.")
        assert (entries(one), entries(two)) == (1, 1)


async def test_vectors_of_another_embedder_never_meet(server: RedisServer) -> None:
    async with gateway(server, "e1") as one, gateway(server, "e2") as two:
        await one.learn(QUESTION)
        await until(lambda: entries(two) == 1)
        assert (await two.look(QUESTION)).outcome == "exact"
        assert (await two.look(SIMILAR)).outcome == "miss"
        assert two.cache.stats().vectors == 0


async def test_redis_drops_by_itself_what_is_too_old(server: RedisServer) -> None:
    async with gateway(server) as one:
        one.clock.now -= TTL_S - 1.5
        await one.learn(QUESTION)
        with redis.Redis(port=server.port) as client:
            (name,) = names(server)
            assert 0 < client.pttl(name) <= 1500


async def test_what_one_gateway_evicts_goes_everywhere(server: RedisServer) -> None:
    async with gateway(server, max_entries=3) as one, gateway(server, max_entries=3) as two:
        for number in range(5):
            await one.learn(f"question {number}", mode="exact")
        held = one.cache.keeper.held
        await until(lambda: sorted(two.cache.keeper.held()) == sorted(held()) and len(names(server)) == 3)
        assert len(held()) == 3


@pytest.mark.parametrize("durable", [True, False])
async def test_an_outage_is_survived_and_made_up_for(
    tmp_path: Path, durable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With and without an append-only file: what Redis forgets, the gateways put back."""
    server = RedisServer(tmp_path, durable=durable)
    try:
        async with gateway(server) as one, gateway(server) as two:
            await one.learn(QUESTION, "Jupiter.")
            await until(lambda: entries(two) == 1)
            server.stop()
            await until(lambda: one.counted("carpool_cache_store_up") == {(): 0})
            await until(lambda: two.counted("carpool_cache_store_up") == {(): 0})
            # Nothing fails and nothing waits: known answers are served, new ones stay here.
            assert (await two.look(QUESTION)).outcome == "exact"
            await one.learn(UNLIKE)
            assert (await one.look(UNLIKE)).outcome == "exact"
            assert (await two.look(UNLIKE)).outcome == "miss"
            with pytest.raises(OSError, match="cannot be reached"):
                await two.cache.invalidate(Selector(request_id="req-1", tenant="local", model="m"))
            server.start()
            await until(lambda: one.counted("carpool_cache_store_up") == {(): 1})
            await until(lambda: ask(UNLIKE, config=two.config).exact in two.cache.keeper.held())
            await until(lambda: sorted(two.cache.keeper.held()) == sorted(one.cache.keeper.held()))
            assert (await two.look(UNLIKE)).outcome == "exact"
        lines = [r.getMessage() for r in caplog.records if r.name == "carpool.cache.keeper"]
        assert len([line for line in lines if "kept in memory only" in line]) == 2  # one of each gateway
        assert len([line for line in lines if "works again" in line]) == 2
    finally:
        server.stop()


async def test_a_gateway_starts_without_redis_and_joins_when_it_comes(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.stop()
    try:
        async with gateway(server) as one:
            await one.learn(QUESTION)
            assert (await one.look(SIMILAR)).outcome == "semantic"
            server.start()
            await until(lambda: len(names(server)) == 1)
    finally:
        server.stop()


async def test_a_redis_that_hangs_holds_nobody_up(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carpool.cache.redis._TIMEOUT_S", 0.3)
    monkeypatch.setattr("carpool.cache.redis._BLOCK_MS", 100)
    async with gateway(server) as one:
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        await one.learn(QUESTION)
        await until(lambda: one.counted("carpool_cache_store_up") == {(): 0})
        assert (await one.look(QUESTION)).outcome == "exact"
        os.kill(server.process.pid, signal.SIGCONT)
        await until(lambda: len(names(server)) == 1)


async def test_an_unreadable_entry_is_told_of_and_dropped(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(server) as one:
        await one.learn(QUESTION)
        await one.learn(UNLIKE)
        good, bad = names(server)
        with redis.Redis(port=server.port) as client:
            data = client.get(bad)
            assert isinstance(data, bytes)
            client.set("carpool:1:entry:not-a-digest", b"foreign")
        async with gateway(server) as two:
            assert entries(two) == 2
            damage(server, bad, data[:-1] + b"?")
            await until(lambda: names(server)[:1] == [good] and len(names(server)) == 2)
            assert "checksum" in caplog.text
            damage(server, good, b"")
            await until(lambda: caplog.text.count("unreadable") >= 2)
            await two.learn("Why do cats purr?")
            await until(lambda: entries(one) == 3)
        caplog.clear()
    assert caplog.text == ""


async def test_a_poisoned_vector_from_elsewhere_is_not_taken_in(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(server) as one:
        entry = Entry.of(ask(QUESTION), answer(created=time.time()))
        poisoned = Record(entry, np.full(256, np.nan, dtype=np.float32)).encode("e1")
        damage(server, b"carpool:1:entry:" + entry.exact.hex().encode(), poisoned)
        await until(lambda: "unreadable" in caplog.text)
        assert entries(one) == 0
        await one.learn(UNLIKE)
        assert (await one.look(UNLIKE)).outcome == "exact"


async def test_who_falls_behind_the_log_reads_all_anew(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carpool.cache.redis._LOG_LENGTH", 10)
    monkeypatch.setattr("carpool.cache.redis._GROUP", 4)
    async with gateway(server) as one, gateway(server) as two:
        await one.learn("the first", mode="exact")
        await until(lambda: entries(two) == 1)
        # As if the log had been cut between two reads of the second gateway.
        with redis.Redis(port=server.port) as client, client.pipeline(transaction=True) as pipe:
            for number in range(30):
                record = Record(Entry.of(ask(f"q{number}"), answer(created=time.time())), None)
                pipe.set(f"carpool:1:entry:{record.entry.exact.hex()}", record.encode("e1"))
                item = {"by": "x", "kept": 1, "key": record.entry.exact}
                pipe.xadd("carpool:1:log", item, maxlen=10, approximate=False)
            pipe.execute()
        await until(lambda: entries(two) == 31 == entries(one))


def delete_elsewhere(server: RedisServer, key: bytes) -> None:
    """As another gateway does, while nothing else here gets a turn."""
    with redis.Redis(port=server.port) as client, client.pipeline(transaction=True) as pipe:
        pipe.delete(f"carpool:1:entry:{key.hex()}")
        pipe.xadd("carpool:1:log", {"by": "x", "kept": 0, "key": key})
        pipe.execute()


@asynccontextmanager
async def store_of(server: RedisServer) -> AsyncIterator[tuple[RedisStore, HoldingListener]]:
    store, listener = RedisStore(server.url, "e1", TTL_S), HoldingListener()
    await store.load(listener)
    try:
        yield store, listener
    finally:
        await store.close()


def record_of(question: str, text: str = "An answer.", age_s: float = 0.0) -> Record:
    return Record(Entry.of(ask(question), answer(text, created=time.time() - age_s)), None)


async def put(store: RedisStore, listener: HoldingListener, record: Record) -> None:
    listener.added([record])
    await store.put(record)


@pytest.mark.parametrize("confirmed", [False, True])
async def test_what_is_kept_anew_survives_a_deletion_that_came_before(
    server: RedisServer, confirmed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_of(server) as (store, listener):
        old, new = record_of(QUESTION, "Old."), record_of(QUESTION, "New.")
        key = old.entry.exact
        await put(store, listener, old)
        may_read = asyncio.Event()
        read_log = store._read_log

        async def late(*args: Any) -> bytes:
            await may_read.wait()
            return await read_log(*args)

        if confirmed:
            monkeypatch.setattr(store, "_read_log", late)
            await put(store, listener, record_of(UNLIKE))  # ends the read that is under way
        delete_elsewhere(server, key)
        listener.added([new])
        kept = store.put(new)
        if confirmed:
            await kept
        may_read.set()
        await put(store, listener, record_of("Why do cats purr?"))
        delete_elsewhere(server, record_of("Why do cats purr?").entry.exact)
        await until(lambda: len(listener.records) == (2 if confirmed else 1))
        assert listener.records[key] is new
        # And what others do after it counts again.
        delete_elsewhere(server, key)
        await until(lambda: key not in listener.records)


async def test_what_is_kept_while_all_is_read_anew_stays(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carpool.cache.redis._LOG_LENGTH", 10)
    monkeypatch.setattr("carpool.cache.redis._GROUP", 4)
    async with store_of(server) as (store, listener):
        first, meanwhile, gone = (record_of(name) for name in ("first", "meanwhile", "gone"))
        for record in (first, gone):
            await put(store, listener, record)
        scan = store._client.scan
        scans = 0

        async def slow_scan(*args: Any, **fields: Any) -> Any:
            nonlocal scans
            reply = await scan(*args, **fields)
            if reply[0] == 0:
                scans += 1
                await put(store, listener, meanwhile)  # and confirmed, and not in the reply
            return reply

        monkeypatch.setattr(store._client, "scan", slow_scan)
        with redis.Redis(port=server.port) as client, client.pipeline(transaction=True) as pipe:
            pipe.delete(f"carpool:1:entry:{gone.entry.exact.hex()}")
            for number in range(30):  # the log is cut, the deletion with it
                pipe.xadd("carpool:1:log", {"by": "x", "kept": 0, "key": b"%d" % number}, maxlen=10)
            pipe.xtrim("carpool:1:log", maxlen=10, approximate=False)
            pipe.execute()
        await until(lambda: scans > 0 and gone.entry.exact not in listener.records)
        assert set(listener.records) == {first.entry.exact, meanwhile.entry.exact}
        assert len(names(server)) == 2


async def test_the_newer_of_two_answers_from_an_outage_stays(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, durable=True)
    try:
        async with store_of(server) as (store, listener):
            await put(store, listener, record_of("a", "Old.", age_s=60))
            await put(store, listener, record_of("b", "Old.", age_s=60))
            server.stop()
            await until(lambda: listener.errors[-1] is not None)
            for name, age_s in (("a", 0), ("b", 120)):
                record = record_of(name, "New.", age_s=age_s)
                listener.added([record])
                store.put(record).exception()
            server.start()
            await until(lambda: listener.errors[-1] is None)
            await put(store, listener, record_of("c"))  # behind what is put back
        texts = {name: listener.records[record_of(name).entry.exact].entry.answer.text for name in "ab"}
        assert texts == {"a": "New.", "b": "Old."}
        async with store_of(server) as (_, again):
            texts = {name: again.records[record_of(name).entry.exact].entry.answer.text for name in "ab"}
        assert texts == {"a": "New.", "b": "Old."}
    finally:
        server.stop()


async def test_an_entry_whose_vector_is_being_made_is_not_held_yet() -> None:
    bench = Bench()
    bench.embed.gate = asyncio.Event()
    async with bench.cache:
        learning = asyncio.create_task(bench.learn(QUESTION))
        await until(lambda: entries(bench) == 1)
        assert bench.cache.keeper.held() == []
        bench.embed.gate.set()
        await learning
        assert len(bench.cache.keeper.held()) == 1


async def test_many_changes_of_both_end_in_the_same_state(server: RedisServer) -> None:
    async with gateway(server) as one, gateway(server) as two:

        async def busy(bench: Bench, name: str) -> None:
            for number in range(60):
                await bench.learn(f"question {name} {number}", mode="exact")
                if number % 7 == 0:
                    await bench.cache.invalidate(Selector(digest=bench.cache.keeper.held()[0].hex()))
                await asyncio.sleep(0)

        await asyncio.gather(busy(one, "a"), busy(two, "b"))
        await until(lambda: sorted(one.cache.keeper.held()) == sorted(two.cache.keeper.held()))
        await until(lambda: len(names(server)) == entries(one))
