"""How long the prompts are that take a similar question's answer: no model reads them, and usage tells it."""

import asyncio
from collections import OrderedDict

from carpool.cache.query import Query
from carpool.errors import CarpoolError
from carpool.worker.client import WorkerClient
from carpool.worker.protocol import Generate

_REMEMBERED = 4096
"""Prompts whose length is remembered: what one asks in other words, others do, too."""
_COUNT_S = 1.0
"""A worker that has not counted by then does not hold up an answer that is at hand."""


class PromptLengths:
    """Lets the worker count, once for each question."""

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self._lengths: OrderedDict[bytes, int] = OrderedDict()  # by exact digest; least recently used first

    async def of(self, generate: Generate, query: Query) -> int | None:
        """The tokens of a request's prompt; None where its model is down, or cannot tell in time."""
        length = self._lengths.pop(query.exact, None)
        if length is None:
            try:
                async with asyncio.timeout(_COUNT_S):
                    length = await self._client.count_tokens(generate)
            except (CarpoolError, TimeoutError):
                return None
        self._lengths[query.exact] = length
        if len(self._lengths) > _REMEMBERED:
            self._lengths.popitem(last=False)
        return length
