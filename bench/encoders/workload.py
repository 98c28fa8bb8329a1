"""What everybody is asked: the same texts in the same calls."""

import math
import random
from typing import Any

THREADS = 2
MODEL = "all-minilm-l6-v2"
CONNECTIONS = (1, 16, 50)
WORDS = (10, 100)
"""Of the texts that come one by one."""
BULK_TEXTS = 10_000
BULK_CALL = 256
"""Texts of one bulk call."""
BULK_CONNECTIONS = 4
REFERENCES = {
    "rows": "OpenVINO alone, sorted batches of token ids, a text a row",
    "runtime": "Carpool's runtime alone, the same batches, several texts a row",
}
"""What the bulk is compared with: two ways to compute it without a server, see `bare`."""
BULK_WORDS = (5, 100)
"""Shortest and longest text of the bulk; in between, every length's logarithm is as likely."""

_WORDS = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an
they which one you were all her she there would their we him been has when who will no more if out so
said what up its about into than them can only other new some could time these two may then do first any
my now such like our over man me even most made after also did many before must through back years where
much your way well down should because each just those people how too little state good very make world
still own see men work long get here between both life being under never day same another know while last
might us great old year off come since against go came right used take three river bridge harbour engine
window letter garden market station winter paper music glass bread valley
""".split()  # noqa: SIM905 - prose is easier to read


def text(words: int, seed: int) -> str:
    """Common words at random, about as many tokens."""
    chance = random.Random(seed)
    return " ".join(chance.choice(_WORDS) for _ in range(words))


def bulk_texts(count: int = BULK_TEXTS) -> list[str]:
    """Texts of mixed lengths, each another."""
    chance = random.Random(7)
    shortest, longest = map(math.log, BULK_WORDS)
    return [text(round(math.exp(chance.uniform(shortest, longest))), seed) for seed in range(count)]


def body(inputs: str | list[str], *, coded: bool = False) -> dict[str, Any]:
    """The body of an embeddings call; `coded`: the vectors as base64, as the OpenAI client asks for them."""
    return {"model": MODEL, "input": inputs} | ({"encoding_format": "base64"} if coded else {})


def single_bodies(words: int) -> list[dict[str, Any]]:
    """Calls with one text each."""
    return [body(text(words, seed)) for seed in range(1000)]


def bulk_bodies(texts: list[str]) -> list[dict[str, Any]]:
    """Calls with many texts each."""
    return [body(texts[first : first + BULK_CALL], coded=True) for first in range(0, len(texts), BULK_CALL)]
