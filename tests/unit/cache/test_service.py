import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carpool.cache.answer import Answer
from carpool.cache.config import CacheConfig
from carpool.cache.entry import Record
from carpool.cache.in_flight import LeaderLost
from carpool.cache.lookup import Lookup
from carpool.cache.memory import MemoryStore
from carpool.cache.query import Query
from carpool.cache.selector import Selector
from carpool.cache.service import AnswerCache
from carpool.cache.sqlite import SqliteStore
from carpool.cache.store import Store
from carpool.errors import ContextLengthExceeded, WorkerDied
from carpool.telemetry import Registry
from tests.unit.cache.bag_of_words import BagOfWords, Clock, answer, ask

QUESTION = "What is the largest planet of our solar system?"
SIMILAR = "The largest of the planets of our solar system is which?"
UNLIKE = "How do bees make honey?"


class Bench:
    """A cache and what stands around it."""

    def __init__(self, store: Store | None = None, **settings: Any) -> None:
        self.config = CacheConfig(
            **{"lookup_budget_ms": 10_000, "policy": "threshold", "threshold": 0.7, **settings}
        )
        self.embed = BagOfWords()
        self.clock = Clock()
        self.registry = Registry()
        self.cache = AnswerCache(
            self.config,
            embed=self.embed,
            store=store or MemoryStore(),
            registry=self.registry,
            clock=self.clock,
        )

    async def learn(self, question: str, text: str = "An answer.", **fields: Any) -> None:
        """Let the model answer a question."""
        finish = fields.pop("finish_reason", "stop")
        tokens = fields.pop("completion_tokens", 3)
        lookup = await self.cache.lookup(ask(question, config=self.config, **fields))
        assert lookup.outcome == "miss"
        assert lookup.lead is not None
        lookup.lead.complete(
            answer(text, created=self.clock(), finish_reason=finish, completion_tokens=tokens)
        )
        await self.cache.flush()

    async def look(self, question: str, **fields: Any) -> Lookup:
        """Look up and let go of what was got."""
        lookup = await self.cache.lookup(ask(question, config=self.config, **fields))
        if lookup.lead:
            lookup.lead.abandon()
        return lookup

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        (metric,) = [metric for metric in self.registry.snapshot() if metric.name == name]
        return {tuple(value for _, value in series.labels): series.value for series in metric.series}


@asynccontextmanager
async def running(store: Store | None = None, **settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(store, **settings)
    async with bench.cache:
        yield bench


async def test_exact_semantic_miss() -> None:
    async with running() as bench:
        await bench.learn(QUESTION, "Jupiter.")
        bench.clock.now += 5
        exact = await bench.look(QUESTION)
        assert (exact.outcome, exact.match, exact.age_s, exact.similarity) == ("exact", "req-1", 5.0, None)
        semantic = await bench.look(SIMILAR)
        assert (semantic.outcome, semantic.match, semantic.age_s) == ("semantic", "req-1", 5.0)
        assert semantic.similarity is not None
        assert 0.7 < semantic.similarity < 1
        for hit in (exact, semantic):
            assert hit.answer is not None
            assert hit.answer.text == "Jupiter."
        assert (await bench.look(UNLIKE)).outcome == "miss"
        stats = bench.cache.stats()
        assert (stats.entries, stats.vectors, stats.in_flight) == (1, 1, 0)
        outcomes = bench.counted("carpool_cache_lookups_total")
        assert outcomes == {
            ("m", "miss", "local"): 2,
            ("m", "exact", "local"): 1,
            ("m", "semantic", "local"): 1,
        }
        assert stats.lookups == {("local", "m"): {"miss": 2, "exact": 1, "semantic": 1}}
        assert bench.counted("carpool_cache_entries") == {(): 1}
        assert bench.counted("carpool_cache_bytes") == {(): stats.size_bytes}


async def test_an_answer_is_found_at_once_and_its_vector_follows() -> None:
    async with running() as bench:
        bench.embed.gate = asyncio.Event()
        lookup = await bench.cache.lookup(ask(QUESTION, config=bench.config))
        assert lookup.lead is not None
        lookup.lead.complete(answer())
        assert (await bench.look(QUESTION)).outcome == "exact"
        assert bench.cache.stats().vectors == 0
        bench.embed.gate.set()
        await bench.cache.flush()
        assert bench.cache.stats().vectors == 1


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "other"},
        {"model": "other"},
        {"temperature": 0.0},
        {"parameters": {"top_p": 0.5}},
        {"user": "ann"},
        {"earlier": [{"role": "system", "content": "Answer in French."}]},
        {"earlier": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"requested": "exact"},
        {"no_cache": True},
    ],
)
async def test_no_hit_by_meaning_outside_of_the_partition_or_the_mode(other: dict[str, Any]) -> None:
    async with running() as bench:
        await bench.learn(QUESTION)
        assert (await bench.look(SIMILAR, **other)).outcome == "miss"


@pytest.mark.parametrize(
    ("stored", "asked", "reason"),
    [
        (
            "What are the names of the moons of planet 4?",
            "What are the names of the moons of planet 5?",
            "numbers",
        ),
        (
            "Are there animals on islands that do swim well?",
            "Are there animals on islands that do not swim well?",
            "negation",
        ),
        ("What is the capital city of France?", "What is the capital city of Spain?", "names"),
        ("What is the favourite food of cats?", "What is the favourite food of dogs?", "difference"),
        ("Which is the best trading company?", "Which is the best forex trading company?", "addition"),
    ],
)
async def test_similar_questions_with_another_answer(stored: str, asked: str, reason: str) -> None:
    async with running() as bench:
        await bench.learn(stored)
        assert (await bench.look(asked)).outcome == "miss"
        assert bench.counted("carpool_cache_vetoes_total") == {(reason,): 1}


async def test_the_next_candidate_is_taken_where_the_nearest_is_vetoed() -> None:
    async with running(threshold=0.5) as bench:
        await bench.learn("What is the capital city of Spain?", "Madrid.")
        await bench.learn("Tell me the capital city of France, which is what?", "Paris.", no_cache=True)
        hit = await bench.look("What is the capital city of France?")
        assert hit.answer is not None
        assert hit.answer.text == "Paris."


@pytest.mark.parametrize(
    ("kept", "fields"),
    [
        (False, {"finish_reason": "length"}),
        (False, {"finish_reason": "tool_calls"}),
        (False, {"no_store": True}),
        (True, {"no_cache": True}),
    ],
)
async def test_only_complete_answers_are_stored(kept: bool, fields: dict[str, Any]) -> None:
    async with running() as bench:
        await bench.learn(QUESTION, **fields)
        assert (await bench.look(QUESTION)).outcome == ("exact" if kept else "miss")


async def test_failed_and_abandoned_answers_are_not_stored() -> None:
    async with running() as bench:
        for end in ("fail", "abandon"):
            lookup = await bench.cache.lookup(ask(QUESTION, config=bench.config))
            assert lookup.lead is not None
            lookup.lead.publish("half of an ")
            if end == "fail":
                lookup.lead.fail(WorkerDied("gone"))
            else:
                lookup.lead.abandon()
            lookup.lead.complete(answer())
            assert (await bench.look(QUESTION)).outcome == "miss"
        assert bench.cache.stats().entries == 0


async def test_a_complete_answer_serves_every_request_it_fits() -> None:
    async with running() as bench:
        await bench.learn(QUESTION, completion_tokens=10)
        for question, hit in ((QUESTION, "exact"), (SIMILAR, "semantic")):
            for max_tokens, outcome in ((None, hit), (10, hit), (11, hit), (9, "miss")):
                assert (await bench.look(question, max_tokens=max_tokens)).outcome == outcome


async def test_bypass() -> None:
    async with running() as bench:
        await bench.learn(QUESTION)
        assert await bench.look(QUESTION, requested="off") == Lookup("bypass")


async def test_a_cold_popular_question_is_answered_once() -> None:
    async with running() as bench:
        lookups = await asyncio.gather(
            *[bench.cache.lookup(ask(QUESTION, config=bench.config), request_id=str(i)) for i in range(50)]
        )
        leaders = [lookup.lead for lookup in lookups if lookup.lead]
        flights = [lookup.flight for lookup in lookups if lookup.flight]
        assert (len(leaders), len(flights)) == (1, 49)
        assert all(lookup.match == "0" for lookup in lookups if lookup.outcome == "joined")
        leaders[0].publish("Jup")

        async def whole(flight: Any) -> str:
            return "".join([piece async for piece in flight])

        texts = asyncio.gather(*map(whole, flights))
        leaders[0].complete(answer("Jupiter.", finish_reason="length"))
        assert await texts == ["Jupiter."] * 49
        assert flights[0].answer is not None
        assert flights[0].answer.finish_reason == "length"


async def test_requests_of_different_length_do_not_join() -> None:
    async with running() as bench:
        first = await bench.cache.lookup(ask(QUESTION, config=bench.config, max_tokens=5))
        assert first.lead is not None
        assert (await bench.look(QUESTION, max_tokens=6)).outcome == "miss"
        first.lead.abandon()


async def test_a_similar_question_is_searched_once_for_all_who_ask_it() -> None:
    async with running() as bench:
        await bench.learn(QUESTION, "Jupiter.")
        bench.embed.calls.clear()
        lookups = await asyncio.gather(
            *[bench.cache.lookup(ask(SIMILAR, config=bench.config)) for _ in range(20)]
        )
        assert {lookup.outcome for lookup in lookups} == {"semantic"}
        assert bench.embed.calls.count([SIMILAR]) == 1


async def test_a_question_in_other_words_is_embedded_once_for_a_tenant() -> None:
    async with running() as bench:
        for tenant in ("one", "two"):
            await bench.learn(QUESTION, tenant=tenant)
        bench.embed.calls.clear()
        for _ in range(3):
            for tenant in ("one", "two"):
                assert (await bench.look(SIMILAR, tenant=tenant)).outcome == "semantic"
        assert bench.embed.calls.count([SIMILAR]) == 2


async def test_vectors_of_old_questions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.cache.semantic._RECENT", 2)
    async with running() as bench:
        await bench.learn(QUESTION)
        bench.embed.calls.clear()
        for text in (SIMILAR, UNLIKE, SIMILAR, "Who painted the Mona Lisa?", SIMILAR, UNLIKE):
            await bench.look(text)
        assert [texts for texts in bench.embed.calls if texts in ([SIMILAR], [UNLIKE])] == [
            [SIMILAR],
            [UNLIKE],
            [UNLIKE],
        ]


async def test_a_leader_cancelled_during_its_search_hands_over() -> None:
    async with running() as bench:
        await bench.learn(QUESTION)
        bench.embed.gate = asyncio.Event()
        query = ask(UNLIKE, config=bench.config)
        first = asyncio.create_task(bench.cache.lookup(query))
        second = asyncio.create_task(bench.cache.lookup(query))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        bench.embed.gate.set()
        lookup = await second
        assert lookup.outcome == "miss"
        assert lookup.lead is not None
        lookup.lead.abandon()
        assert first.cancelled()


async def test_a_large_search_runs_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.cache.searcher.INLINE_WORK", 0)
    async with running() as bench:
        await bench.learn(QUESTION)
        assert (await bench.look(SIMILAR)).outcome == "semantic"
        assert (await bench.look(UNLIKE)).outcome == "miss"


async def test_a_search_over_budget_is_a_miss_and_its_vector_is_kept() -> None:
    async with running(lookup_budget_ms=1) as bench:
        await bench.learn(QUESTION)
        bench.embed.gate = asyncio.Event()
        lookup = await bench.cache.lookup(ask(SIMILAR, config=bench.config))
        assert lookup.outcome == "miss"
        assert lookup.lead is not None
        assert bench.counted("carpool_cache_searches_given_up_total") == {("budget",): 1}
        lookup.lead.complete(answer())
        bench.embed.gate.set()
        await bench.cache.flush()
        assert bench.cache.stats().vectors == 2
        assert bench.embed.calls.count([SIMILAR]) == 1


async def test_a_failing_embedder_is_a_miss_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with running() as bench:
        await bench.learn(QUESTION)
        bench.embed.error = WorkerDied("the embedder is gone")
        for _ in range(3):
            assert (await bench.look(SIMILAR)).outcome == "miss"
        assert len(caplog.messages) == 1
        assert (await bench.look(QUESTION)).outcome == "exact"
        bench.embed.error = None
        assert (await bench.look(SIMILAR)).outcome == "semantic"
        assert len(caplog.messages) == 2


async def test_a_turn_that_the_embedder_would_cut_is_exact_only() -> None:
    async with running() as bench:
        bench.embed.error = ContextLengthExceeded("too long")
        await bench.learn(QUESTION)
        bench.embed.error = None
        assert (await bench.look(QUESTION)).outcome == "exact"
        assert (await bench.look(SIMILAR)).outcome == "miss"


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
async def test_poisoned_vectors_are_never_stored(bad: float) -> None:
    async def poisoned(texts: list[str]) -> Any:
        return np.full((len(texts), 8), bad, dtype=np.float32)

    clock = Clock()
    cache = AnswerCache(CacheConfig(), embed=poisoned, store=MemoryStore(), registry=Registry(), clock=clock)
    async with cache:
        lookup = await cache.lookup(ask(QUESTION))
        assert lookup.lead is not None
        lookup.lead.complete(answer(created=clock()))
        await cache.flush()
        assert (cache.stats().entries, cache.stats().vectors) == (1, 0)


async def test_answers_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    async with running(SqliteStore(path, "e1")) as bench:
        await bench.learn(QUESTION, "Jupiter.")
    async with running(SqliteStore(path, "e1")) as bench:
        assert (await bench.look(QUESTION)).outcome == "exact"
        assert (await bench.look(SIMILAR)).outcome == "semantic"
    async with running(SqliteStore(path, "e2")) as bench:
        assert (await bench.look(QUESTION)).outcome == "exact"
        assert (await bench.look(SIMILAR)).outcome == "miss"


async def test_what_the_cache_drops_the_store_drops(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    async with running(SqliteStore(path, "e1"), max_entries=2, ttl_s=100) as bench:
        for question in (QUESTION, UNLIKE, "Why do cats purr?"):
            await bench.learn(question)
        bench.clock.now += 50
        await bench.learn("Who wrote Faust?")
        bench.clock.now += 50
        assert (await bench.look("Why do cats purr?")).outcome == "miss"
        assert bench.counted("carpool_cache_removed_total") == {("evicted",): 2, ("expired",): 1}
    async with running(SqliteStore(path, "e1")) as bench:
        assert bench.cache.stats().entries == 1
        bench.clock.now += 50
        assert (await bench.look("Who wrote Faust?")).outcome == "exact"


async def test_lower_bounds_apply_to_what_was_stored_before(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    async with running(SqliteStore(path, "e1")) as bench:
        for number in range(300):
            await bench.learn(f"question {number}", mode="exact")
    async with running(SqliteStore(path, "e1"), max_entries=10) as bench:
        assert bench.cache.stats().entries == 10
    async with running(SqliteStore(path, "e1")) as bench:
        assert bench.cache.stats().entries == 10


async def test_invalidate(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite3"
    async with running(SqliteStore(path, "e1")) as bench:
        await bench.learn(QUESTION, tenant="red")
        await bench.learn(QUESTION, tenant="blue")
        assert await bench.cache.invalidate(Selector(tenant="red"), dry_run=True) == 1
        assert bench.cache.stats().entries == 2
        assert await bench.cache.invalidate(Selector(tenant="red")) == 1
        assert await bench.cache.invalidate(Selector(tenant="red")) == 0
        assert (await bench.look(QUESTION, tenant="red")).outcome == "miss"
        assert (await bench.look(QUESTION, tenant="blue")).outcome == "exact"
    async with running(SqliteStore(path, "e1")) as bench:
        assert bench.cache.stats().entries == 1


class BrokenStore(MemoryStore):
    """Opens, then refuses every change."""

    def put(self, record: Record) -> "asyncio.Future[None]":
        return self._refused()

    def delete(self, keys: Sequence[bytes]) -> "asyncio.Future[None]":
        return self._refused()

    def _refused(self) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(OSError("disk full"))
        return future


async def test_a_broken_store_is_told_once_and_the_cache_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with running(BrokenStore()) as bench:
        await bench.learn(QUESTION)
        await bench.learn(UNLIKE)
        assert (await bench.look(QUESTION)).outcome == "exact"
        assert (await bench.look(SIMILAR)).outcome == "semantic"
        assert caplog.text.count("disk full") == 1
        with pytest.raises(OSError, match="disk full"):
            await bench.cache.invalidate(Selector())


async def test_a_stop_does_not_wait_for_a_stuck_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carpool.cache.keeper._STOP_GRACE_S", 0.0)
    async with running() as bench:
        bench.embed.gate = asyncio.Event()
        lookup = await bench.cache.lookup(ask(QUESTION, config=bench.config))
        assert lookup.lead is not None
        lookup.lead.complete(answer())
    assert bench.cache.stats().entries == 1


async def serve(bench: Bench, query: Query, owner: str, dice: random.Random) -> tuple[str, Answer] | None:
    """A request as a gateway carries it out; its answer names the owner of the question."""
    lost: LeaderLost | None = None
    while True:
        lookup = await bench.cache.lookup(query, after=lost)
        if lookup.answer:
            return lookup.outcome, lookup.answer
        if lookup.flight:
            try:
                pieces = [piece async for piece in lookup.flight]
            except LeaderLost as error:
                lost = error
                continue
            assert lookup.flight.answer is not None
            assert "".join(pieces) == lookup.flight.answer.text
            return "joined", lookup.flight.answer
        assert lookup.lead is not None
        with lookup.lead as leader:
            await asyncio.sleep(0)
            if dice.random() < 0.2:
                return None
            leader.complete(answer(owner, created=bench.clock()))
            return "miss", answer(owner)


async def test_chaos_no_answer_crosses_tenants_models_or_conversations() -> None:
    dice = random.Random(7)
    starts = ["What is", "Which is", "Tell me", "Do you know"]
    things = ["the largest planet", "the highest mountain", "the oldest tree", "the deepest lake"]
    outcomes: dict[str, int] = {}
    async with running(max_entries=200, threshold=0.5) as bench:

        async def one() -> None:
            tenant, model = dice.choice(["red", "blue", "re"]), dice.choice(["m", "dm"])
            system = dice.choice(["", "Be brief."])
            query = ask(
                f"{dice.choice(starts)} {dice.choice(things)} of the solar system or the whole wide world?",
                config=bench.config,
                tenant=tenant,
                model=model,
                earlier=[{"role": "system", "content": system}] if system else None,
            )
            owner = f"{tenant}|{model}|{system}"
            served = await serve(bench, query, owner, dice)
            if served is not None:
                outcome, found = served
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                assert found.text == owner

        for _ in range(int(os.environ.get("CARPOOL_CHAOS_REQUESTS", "10000")) // 20):
            await asyncio.gather(*[one() for _ in range(20)])
            if dice.random() < 0.1:
                await bench.cache.invalidate(Selector(tenant=dice.choice(["red", "blue"])))
        assert bench.cache.stats().in_flight == 0
    assert all(outcomes[name] > 0 for name in ("exact", "joined", "semantic", "miss"))
