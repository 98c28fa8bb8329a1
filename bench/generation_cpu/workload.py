"""What every contestant does: the same prompts, counted and timed the same way. Standard library only."""

import asyncio
import itertools
import json
import os
import random
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

NEW_TOKENS = 64
STREAMS = (1, 8, 32, 64)
THREADS = 2

ANSWERS_FD = "BENCH_ANSWERS_FD"
"""Environment variable with the number of the file that answers are written to."""

_TOPICS = ("rivers", "bread", "bridges", "clocks", "whales", "glass", "maps", "bees", "trains", "salt")
_ASKS = (
    "Explain in a few sentences how {} came to be what they are today.",
    "Write a short letter to a friend about {}.",
    "What should a child know about {}?",
    "Tell me three surprising facts about {} and why they matter to people.",
)
_FACTS = (
    "My grandmother kept a drawer full of notes about {} and read them to us on winter evenings.",
    "The town where I grew up was known for its {} long before there was a road to it.",
    "A teacher once told me that nobody can understand a country who has not looked at its {}.",
    "In the old market there were three people who knew everything about {} and one who claimed to.",
    "We had two books on {} in the house, and they did not agree with each other on anything.",
    "Some say that the best time to learn about {} is when it rains and there is nothing else to do.",
)
MIXED = (2, 0, 8, 1, 5, 0, 9, 3)
"""Sentences before the question, so that eight streams hold short and long prompts: 20 to 200 tokens."""
QUESTIONS = (0,)
"""None: 20 to 35 tokens, and most of the time goes into decoding."""


def prompts(count: int, number: int, sentences: Sequence[int] = MIXED) -> list[str]:
    """That many different prompts in SmolLM2's chat format, other ones for every number.

    They differ from their first words on, so that no prefix cache has seen them. `sentences`: how many come
    before the question, prompt by prompt.
    """
    chance = random.Random(number)
    found = []
    for index in range(count):
        facts = [chance.choice(_FACTS) for _ in range(sentences[index % len(sentences)])]
        text = " ".join(
            [f"{chance.choice('ABCDEFGH')}{number}-{index}:", *facts, chance.choice(_ASKS)]
        ).replace("{}", chance.choice(_TOPICS))
        found.append(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
    return found


class Contestant(Protocol):
    """An engine with its model loaded. Everything is greedy and exactly `NEW_TOKENS` long."""

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """The texts of prompts that are all there at once."""
        ...

    def serve(self, prompts: Sequence[str], due: Sequence[float]) -> list[list[float]]:
        """When each token of each prompt was there, in seconds since the call.

        Prompt i is handed over `due[i]` seconds after the call, whatever has become of the others.
        """
        ...


def answer(start: Callable[[], Contestant]) -> None:
    """The contestant's process: read `{"prompts", "due"?}` lines from stdin, answer each, until stdin ends.

    Without `due` the answer is `{"seconds", "texts"}`, with it `{"times"}`; `{"ready": true}` comes first.
    What goes wrong is answered with `{"error"}` and ends it. Answers go to a pipe of their own, since some
    engines print to standard output.
    """
    with os.fdopen(int(os.environ[ANSWERS_FD]), "w") as out:

        def write(line: dict[str, Any]) -> None:
            print(json.dumps(line), file=out, flush=True)

        try:
            contestant = start()
            write({"ready": True})
            for line in sys.stdin:
                request = json.loads(line)
                began = time.perf_counter()
                if "due" in request:
                    write({"times": contestant.serve(request["prompts"], request["due"])})
                    continue
                texts = contestant.generate(request["prompts"])
                write({"seconds": time.perf_counter() - began, "texts": texts})
        except Exception as error:
            traceback.print_exc()
            write({"error": f"{type(error).__name__}: {error}"})


async def open_loop(
    stream: Callable[[str], AsyncIterator[object]], prompts: Sequence[str], due: Sequence[float]
) -> list[list[float]]:
    """`Contestant.serve` for an engine that is an async iterator of tokens."""
    began = time.perf_counter()

    async def one(prompt: str, at: float) -> list[float]:
        await asyncio.sleep(at - (time.perf_counter() - began))
        return [time.perf_counter() - began async for _ in stream(prompt)]

    return await asyncio.gather(*itertools.starmap(one, zip(prompts, due, strict=True)))
