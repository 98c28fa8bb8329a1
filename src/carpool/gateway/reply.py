"""Where an answer's text comes from: stored, from an identical request in flight, or from the model.

All three are read alike: let it `deliver`, then look at `tokens`, and `aclose` it whatever happened.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from carpool.cache.answer import Answer
from carpool.cache.in_flight import Leader
from carpool.errors import CarpoolError
from carpool.worker.generation import Delta, Generation, Piece


@dataclass(slots=True)
class Tokens:
    """What usage is told of."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    """Of the prompt's, those that were in the model's prefix cache."""


Take = Callable[[Sequence[Piece]], None]
"""Takes pieces, at once and from any callback."""


class Reply(Protocol):
    """An answer on its way, read by one task."""

    @property
    def tokens(self) -> Tokens:
        """Complete after the last piece."""
        ...

    async def deliver(self, take: Take) -> None:
        """Hand over the text, all that is there at a time, to its end.

        Raises the `CarpoolError` the answer ended with.
        """
        ...

    async def aclose(self) -> None:
        """Free what it holds; after its end, and the second time, nothing happens."""
        ...


_REPLAYED_TOGETHER = 16
"""Pieces of a stored answer that are sent as one: a hit need not cost what streaming by token costs."""
REPLAYED_PER_TURN = 64
"""Of these, how many are sent before others get the event loop."""


class StoredReply:
    """A complete answer, replayed."""

    def __init__(self, answer: Answer, prompt_tokens: int | None = None) -> None:
        """`prompt_tokens`: of the request's own prompt; None: it is the one that was answered."""
        self._answer = answer
        self.tokens = Tokens(
            answer.prompt_tokens if prompt_tokens is None else prompt_tokens, answer.completion_tokens
        )

    async def deliver(self, take: Take) -> None:
        """See `Reply`."""
        pieces = self._answer.pieces or [self._answer.text]
        for turn, first in enumerate(range(0, len(pieces), _REPLAYED_TOGETHER)):
            if turn and turn % REPLAYED_PER_TURN == 0:
                await asyncio.sleep(0)
            take([Piece(0, "".join(pieces[first : first + _REPLAYED_TOGETHER]))])
        take([Piece(0, "", self._answer.finish_reason)])

    async def aclose(self) -> None:
        """Holds nothing."""


Ending = Callable[[str, str], str]
"""From a whole text and the model's finish reason to the reply's."""


class GeneratedReply:
    """What the model writes. If it leads a flight, its text is shared and kept."""

    def __init__(
        self,
        generation: Generation,
        lead: Leader | None,
        request_id: str,
        n: int,
        ending: Ending | None = None,
    ) -> None:
        self._generation = generation
        self._lead = lead
        self._request_id = request_id
        self._unfinished = n
        self._ending = ending
        self._texts: list[str] = []
        self.tokens = Tokens(generation.prompt_tokens)

    async def deliver(self, take: Take) -> None:
        """See `Reply`."""

        def pass_on(deltas: list[Delta]) -> None:
            for delta in deltas:
                self._note(delta)
            take(deltas)

        try:
            await self._generation.deliver(pass_on)
        except CarpoolError as error:
            if self._lead is not None:
                self._lead.fail(error)
            raise

    def _note(self, delta: Delta) -> None:
        """Count, share, and with the last delta keep, before anybody else can stop it."""
        self.tokens.completion += len(delta.token_ids)
        if delta.index == 0:  # the others find what it computed
            self.tokens.cached = max(self.tokens.cached, delta.cached_tokens)
        self._unfinished -= delta.finish_reason is not None
        if self._lead is None:
            return
        if delta.text:
            self._texts.append(delta.text)
            self._lead.publish(delta.text)
        if (finish_reason := delta.finish_reason) is not None:
            text = "".join(self._texts)
            self._lead.complete(
                Answer(
                    text=text,
                    finish_reason=finish_reason
                    if self._ending is None
                    else self._ending(text, finish_reason),
                    prompt_tokens=self.tokens.prompt,
                    completion_tokens=self.tokens.completion,
                    request_id=self._request_id,
                    created=time.time(),
                    pieces=self._texts,
                )
            )

    async def aclose(self) -> None:
        """Cancel what still runs, unless others wait for it: then it goes on for them."""
        if self._unfinished and self._lead is not None and self._lead.followers and not self._lead.ended:
            task = asyncio.create_task(self._go_on(self._lead))
            _going_on.add(task)
            task.add_done_callback(_going_on.discard)
            return
        if self._lead is not None:
            self._lead.abandon()
        if self._unfinished:
            await self._generation.aclose()

    async def _go_on(self, lead: Leader) -> None:
        try:
            async for delta in self._generation:
                self._note(delta)
                if not lead.followers:
                    break
        except CarpoolError as error:
            lead.fail(error)
        finally:
            lead.abandon()
            await self._generation.aclose()


_going_on: set[asyncio.Task[None]] = set()
"""Keeps the tasks alive that read generations whose own clients left."""


class SequentialReply:
    """The answers of several prompts; choice j of prompt i has the index i * n + j.

    All of them are under way at once; what comes while an earlier one is read waits its turn.
    """

    def __init__(self, replies: list[Reply], n: int) -> None:
        self._replies = replies
        self._n = n

    @property
    def tokens(self) -> Tokens:
        """Of all prompts together."""
        total = Tokens()
        for each in (reply.tokens for reply in self._replies):
            total.prompt += each.prompt
            total.completion += each.completion
            total.cached += each.cached
        return total

    async def deliver(self, take: Take) -> None:
        """See `Reply`."""

        def take_of(first: int, pieces: Sequence[Piece]) -> None:
            take([msgspec.structs.replace(piece, index=first + piece.index) for piece in pieces])

        for place, reply in enumerate(self._replies):
            await reply.deliver(partial(take_of, place * self._n))
            await asyncio.sleep(0)  # the next may be there already

    async def aclose(self) -> None:
        """Close all of them."""
        for reply in self._replies:
            await reply.aclose()
