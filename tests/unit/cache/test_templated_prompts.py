"""Prompts from templates and swapped contexts, with the real embedder: none gets another one's answer."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.cache_stream.templated import GROUPS
from carpool.cache.config import CacheConfig, PolicyName
from carpool.cache.memory import MemoryStore
from carpool.cache.service import AnswerCache
from carpool.encoders import SentenceTransformersConfig
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.encoder import OpenVinoEncoder
from carpool.telemetry import Registry
from carpool.worker.config import available_cores
from tests.unit.cache.bag_of_words import Clock, answer, ask

pytestmark = pytest.mark.model

BOTH = pytest.mark.parametrize("policy", ["verified", "threshold"])


class Embedder:
    """The starter model, on the calling thread."""

    def __init__(self, path: Path) -> None:
        extra = SentenceTransformersConfig.read(path)
        checkpoint = open_checkpoint(path)
        self._tokenizer = Tokenizer.from_checkpoint(checkpoint)
        self._encoder = OpenVinoEncoder(
            checkpoint, extra.pooling, num_threads=available_cores(), max_tokens=extra.max_tokens
        )

    async def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        return np.concatenate([self._encoder.encode([self._tokenizer.encode(text)]) for text in texts])


@pytest.fixture(scope="module")
def embedder(minilm_path: Path) -> Embedder:
    return Embedder(minilm_path)


@asynccontextmanager
async def running(embedder: Embedder, policy: PolicyName) -> AsyncIterator[AnswerCache]:
    # A high bound on wrong hits: what these suites rule out must not depend on a cautious level.
    config = CacheConfig(policy=policy, max_wrong=0.1, lookup_budget_ms=60_000)
    async with AnswerCache(
        config, embed=embedder, store=MemoryStore(), registry=Registry(), clock=Clock()
    ) as cache:
        yield cache


async def answered(cache: AnswerCache, prompt: str, **fields: Any) -> str:
    """Whose answer a prompt gets: its own, if it has to be generated."""
    lookup = await cache.lookup(ask(prompt, config=cache.config, **fields))
    if lookup.lead is not None:
        lookup.lead.complete(answer(prompt))
        await cache.flush()
        return prompt
    assert lookup.answer is not None
    return lookup.answer.text


@BOTH
@pytest.mark.parametrize("group", GROUPS)
async def test_no_prompt_of_a_template_gets_the_answer_of_another(
    embedder: Embedder, policy: PolicyName, group: str
) -> None:
    async with running(embedder, policy) as cache:
        wrong = [
            (prompt, got) for prompt in GROUPS[group] if (got := await answered(cache, prompt)) != prompt
        ]
    assert wrong == []


CONTEXTS = (
    ("I have a cat.", "What does my pet eat?"),
    ("I have a parrot.", "What does my pet eat?"),
    ("Let us talk about Oslo.", "How many people live in the city?"),
    ("Let us talk about Bergen.", "How many people live in the city?"),
    ("My code is in Python.", "How do I sort the list in my code?"),
    ("My code is in Rust.", "How do I sort the list in my code?"),
)


@BOTH
@pytest.mark.parametrize("role", ["system", "user"])
async def test_the_same_question_in_another_context_is_another_question(
    embedder: Embedder, policy: PolicyName, role: str
) -> None:
    async with running(embedder, policy) as cache:
        for context, question in CONTEXTS:
            earlier = [{"role": role, "content": context}]
            lookup = await cache.lookup(ask(question, config=cache.config, earlier=earlier))
            assert lookup.lead is not None, (context, question)
            lookup.lead.complete(answer(context))
            await cache.flush()
            again = await cache.lookup(ask(question, config=cache.config, earlier=earlier))
            assert again.answer is not None
            assert again.answer.text == context


TRIP = (
    ("system", "You are a travel guide."),
    ("user", "I am going to Oslo in May."),
    ("assistant", "Oslo is mild in May, with long evenings."),
    ("user", "I like museums."),
    ("assistant", "The Munch museum is worth a day."),
)
OTHERWISE = (
    ("system", "You are a pirate who hates museums."),
    ("user", "I am going to Oslo in January."),
    ("assistant", "Oslo is cold in May, with short evenings."),
    ("user", "I like skiing."),
    ("assistant", "The ski museum is worth a day."),
)
PACKING = ("What should I pack for the trip to Norway?", "What should I take on the trip to Norway?")


def conversations() -> Iterator[tuple[tuple[str, str], ...]]:
    """One conversation, and all that differ from it in one place: a turn changed, left out, moved, added."""
    yield TRIP
    for place in range(len(TRIP)):
        before, turn, after = TRIP[:place], TRIP[place], TRIP[place + 1 :]
        yield (*before, OTHERWISE[place], *after)
        yield (*before, (turn[0], f"{turn[1]} "), *after)
        yield (*before, *after)
        yield (*before, turn, turn, *after)
        if after:
            yield (*before, after[0], turn, *after[1:])
    yield (("developer", TRIP[0][1]), *TRIP[1:])
    yield ()


@BOTH
async def test_a_conversation_that_differs_in_any_turn_is_another_one(
    embedder: Embedder, policy: PolicyName
) -> None:
    async with running(embedder, policy) as cache:
        contexts = [
            [{"role": role, "content": content} for role, content in turns] for turns in conversations()
        ]
        for number, earlier in enumerate(contexts):
            for question in PACKING:  # none gets an answer that was given in another conversation
                lookup = await cache.lookup(ask(question, config=cache.config, earlier=earlier))
                if lookup.lead is not None:
                    lookup.lead.complete(answer(f"{number}"))
                    await cache.flush()
                else:
                    assert lookup.answer is not None
                    assert (question, lookup.answer.text) == (PACKING[1], f"{number}")
        for number, earlier in enumerate(contexts):
            for question in PACKING:
                again = await cache.lookup(ask(question, config=cache.config, earlier=earlier))
                assert again.answer is not None
                assert again.answer.text == f"{number}"


NAMES = (
    ("What is the capital of France?", "What is the capital of Spain?"),
    ("what is the capital of france", "what is the capital of spain"),
    ("How many people live in New York?", "How many people live in New Jersey?"),
    (
        "What is the best way to learn to program in Java?",
        "What is the best way to learn to program in Python?",
    ),
    ("Who was the first husband of Agatha Christie?", "Who was the second husband of Agatha Christie?"),
    ("How did World War I begin?", "How did World War II begin?"),
)


@BOTH
@pytest.mark.parametrize(("first", "second"), NAMES)
async def test_the_same_question_about_another_name_is_another_question(
    embedder: Embedder, policy: PolicyName, first: str, second: str
) -> None:
    async with running(embedder, policy) as cache:
        assert await answered(cache, first) == first
        assert await answered(cache, second) == second


@BOTH
async def test_a_question_in_other_words_is_served_nevertheless(
    embedder: Embedder, policy: PolicyName
) -> None:
    async with running(embedder, policy) as cache:
        asked = "What is the largest planet of our solar system?"
        assert await answered(cache, asked) == asked
        assert await answered(cache, "Which is the largest planet in our solar system?") == asked
