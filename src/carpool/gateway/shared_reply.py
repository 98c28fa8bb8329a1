"""The answer of an identical request in flight, and what becomes of it when that request is lost."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from carpool.cache.answer import Answer
from carpool.cache.in_flight import Follower, LeaderLost
from carpool.errors import CarpoolError, Unavailable
from carpool.gateway.reply import REPLAYED_PER_TURN, Reply, StoredReply, Take, Tokens
from carpool.worker.generation import Piece

AskAgain = Callable[[LeaderLost], Awaitable[Reply]]
"""Gets the reply from the next leader, or makes this request that one. Raises the `CarpoolError` why not."""


class SharedReply:
    """The answer of an identical request, as it is generated.

    If the request that leads is lost, it is asked again. What was sent stays sent: the new text is passed on
    from there, as long as it repeats that. A greedy or seeded run does; where another one says something
    else, the reply ends with `Unavailable`.
    """

    def __init__(self, flight: Follower, first: str, ask_again: AskAgain) -> None:
        self._flight = flight
        self._first = first
        self._ask_again = ask_again
        self._next: Reply | None = None
        self.tokens = Tokens()

    @classmethod
    async def open(cls, flight: Follower, whole: bool, ask_again: AskAgain) -> "SharedReply | StoredReply":
        """Wait for the first text, or for the `whole` answer.

        Raises `LeaderLost`, or the error that is this request's own, too.
        """
        async for first in flight:
            if not whole:
                return cls(flight, first, ask_again)
        return StoredReply(_answer_of(flight))

    async def deliver(self, take: Take) -> None:
        """See `Reply`."""
        sent = [self._first]
        take([Piece(0, self._first)])
        try:
            async for text in self._flight:  # which waits for nothing where it is behind
                sent.append(text)
                take([Piece(0, text)])
                if len(sent) % REPLAYED_PER_TURN == 0:
                    await asyncio.sleep(0)
        except LeaderLost as lost:
            await self._go_on(lost, "".join(sent), take)
            return
        answer = _answer_of(self._flight)
        self.tokens = Tokens(answer.prompt_tokens, answer.completion_tokens)
        take([Piece(0, "", answer.finish_reason)])

    async def _go_on(self, lost: LeaderLost, sent: str, take: Take) -> None:
        self._next = await self._ask_again(lost)
        try:
            await self._next.deliver(_Continuation(sent, take))
        except _SaysOtherwiseError:
            raise Unavailable(
                "The identical request that this one shared an answer with has failed, and another run of "
                "the model goes on otherwise than what was sent."
            ) from None
        self.tokens = self._next.tokens

    async def aclose(self) -> None:
        """Stop following."""
        self._flight.close()
        if self._next is not None:
            await self._next.aclose()


class _SaysOtherwiseError(Exception):
    """Not the model's error and not the new leader's: others may share what it says."""


class _Continuation:
    """A `Take` that passes on what comes after a text that was sent already. Raises `_SaysOtherwiseError`."""

    def __init__(self, sent: str, take: Take) -> None:
        self._left = sent
        self._take = take

    def __call__(self, pieces: Sequence[Piece]) -> None:
        passed = []
        for piece in pieces:
            repeated = min(len(piece.text), len(self._left))
            if piece.text[:repeated] != self._left[:repeated]:
                raise _SaysOtherwiseError
            self._left = self._left[repeated:]
            if self._left and piece.finish_reason is not None:
                raise _SaysOtherwiseError
            if repeated < len(piece.text) or piece.finish_reason is not None:
                passed.append(msgspec.structs.replace(piece, text=piece.text[repeated:]))
        if passed:
            self._take(passed)


def _answer_of(flight: Follower) -> Answer:
    if flight.answer is None:
        raise CarpoolError("A shared answer ended without being complete.")
    return flight.answer
