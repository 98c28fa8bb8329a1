"""A small, complete embedder for tests: texts with the same words have the same direction."""

import asyncio
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool.cache.answer import Answer
from carpool.cache.config import CacheConfig
from carpool.cache.difference import words
from carpool.cache.query import Query, chat_query


def embed_text(text: str, dimensions: int = 256) -> NDArray[np.float32]:
    vector = np.zeros(dimensions, dtype=np.float32)
    for word in words(text):
        vector[zlib.crc32(word.encode()) % dimensions] += 1
    return vector


class BagOfWords:
    """Counts its calls; `gate` holds them up, `error` makes them fail."""

    def __init__(self, dimensions: int = 256) -> None:
        self.dimensions = dimensions
        self.calls: list[list[str]] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.calls.append(texts)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return np.stack([embed_text(text, self.dimensions) for text in texts])


class Clock:
    """Stands still until told otherwise, in Unix seconds."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def ask(
    question: str,
    *,
    config: CacheConfig | None = None,
    tenant: str = "local",
    model: str = "m",
    earlier: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Query:
    """The query of a chat with one question."""
    return chat_query(
        config or CacheConfig(),
        messages=[*(earlier or []), {"role": "user", "content": question}],
        tenant=tenant,
        model=model,
        revision="1",
        parameters=fields.pop("parameters", {}),
        **fields,
    )


def answer(text: str = "An answer.", *, created: float = 1_700_000_000.0, **fields: Any) -> Answer:
    defaults = {"finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 3, "request_id": "req-1"}
    return Answer(text=text, created=created, **{**defaults, **fields})
