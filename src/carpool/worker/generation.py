"""A generation on the gateway's side: token ids come in by step, text goes out, stop strings end it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from carpool.errors import CarpoolError
from carpool.models.detokenizer import IncrementalDetokenizer
from carpool.models.stop import StopChecker
from carpool.models.tokenizer import Tokenizer
from carpool.worker.protocol import StepEntry
from carpool.worker.rounds import Rounds


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A drawn token with its natural log-probability and the likeliest alternatives'."""

    token_id: int
    text: str
    bytes_: bytes
    logprob: float
    top: list[tuple[int, str, bytes, float]]
    """(token id, text, bytes, logprob), likeliest first."""


class Piece(msgspec.Struct, frozen=True):
    """A part of one choice's text."""

    index: int
    text: str
    finish_reason: str | None = None
    """In a choice's last piece; from a model `stop` or `length`."""
    logprobs: list[TokenLogprob] | None = None


class Delta(Piece, frozen=True):
    """What one step added to one choice. `text` is empty while bytes or a possible stop string are held."""

    token_ids: list[int] = []
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""


_MOST_AT_ONCE = 64
"""Deltas from before anybody asked for them that are handed over in one turn of the event loop."""


class _Choice:
    """One of a generation's `n` texts in the making."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], shown: Collection[int], min_tokens: int
    ) -> None:
        self.num_unchecked = min_tokens
        """Its next tokens, in whose text no stop string ends it."""
        self.detokenizer = IncrementalDetokenizer(tokenizer, shown)
        self.checker = StopChecker(stop)
        self.finished = False

    def push(self, token_ids: list[int]) -> tuple[str, str | None]:
        """See `StopChecker.push`."""
        if not self.num_unchecked:
            return self.checker.push(self.detokenizer.push(token_ids))
        early, token_ids = token_ids[: self.num_unchecked], token_ids[self.num_unchecked :]
        self.num_unchecked -= len(early)
        shown = self.checker.skip(self.detokenizer.push(early))
        text, matched = self.checker.push(self.detokenizer.push(token_ids))
        return shown + text, matched


class Generation:
    """An accepted generation. Iterate it for the deltas of all its choices, by one task, or `deliver` them.

    Iteration raises the `CarpoolError` the generation ended with, and stops after the last choice. Whoever
    leaves it earlier calls `aclose`, which frees its place at the model.
    """

    prompt_tokens: int
    """Length of the prompt as the model sees it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        n: int,
        stop: Sequence[str],
        on_close: Callable[[], None],
        rounds: Rounds,
        shown: Collection[int] = (),
        min_tokens: int = 0,
    ) -> None:
        """`rounds`: when deltas are delivered. `shown`: the special tokens that give text.

        Stop strings are found where they end behind the first `min_tokens` tokens.
        """
        self._tokenizer = tokenizer
        self._choices = [_Choice(tokenizer, stop, shown, min_tokens) for _ in range(n)]
        self._unfinished = n
        self._running_at_worker = n
        self._on_close = on_close
        self._rounds = rounds
        self._accepted = False
        self._deltas: deque[Delta] = deque()
        self._reader: asyncio.Future[None] | None = None
        """Of the task that waits for news."""
        self._take: Callable[[list[Delta]], None] | None = None
        """Takes deltas while they are delivered."""
        self._handing_over = False
        """Whether it takes part in the next round."""
        self._error: CarpoolError | None = None

    async def accepted(self) -> None:
        """Wait until the worker accepted it. Raises the `CarpoolError` it was refused with."""
        while not self._accepted:
            await self._wait()

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        while not self._deltas:
            if not self._unfinished:
                raise StopAsyncIteration
            await self._wait()
        return self._deltas.popleft()

    async def deliver(self, take: Callable[[list[Delta]], None]) -> None:
        """Hand all deltas to `take`, which gets those that came together at a time, until the last one.

        It is called by the event loop, so that no task has to wake up for each step. Ends and raises as
        iteration does, and raises what `take` raises.
        """
        while self._deltas:
            take(self._taken(_MOST_AT_ONCE))
            if self._deltas:
                await asyncio.sleep(0)
        self._take = take
        try:
            while self._unfinished:
                await self._wait()
        finally:
            self._take = None

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._take is None:
            self._end_wait()
        elif not self._handing_over:  # with what else comes until then
            self._handing_over = True
            self._rounds.join(self._hand_over)

    def _end_wait(self, error: Exception | None = None) -> None:
        if self._reader is None or self._reader.done():
            return
        if error is None:
            self._reader.set_result(None)
        else:
            self._reader.set_exception(error)

    def _hand_over(self) -> None:
        self._handing_over = False
        try:
            if self._take is not None and self._deltas:
                self._take(self._taken())
        except Exception as error:  # the reader's, not the event loop's
            self._take = None
            self._end_wait(error)
        if not self._unfinished or self._error is not None:
            self._end_wait()

    def _taken(self, most: int | None = None) -> list[Delta]:
        if most is not None and len(self._deltas) > most:
            return [self._deltas.popleft() for _ in range(most)]
        deltas = list(self._deltas)
        self._deltas.clear()
        return deltas

    async def aclose(self) -> None:
        """Cancel what still runs and drop what was not read; nothing happens the second time."""
        self._deltas.clear()
        self._unfinished = 0
        self._wake()
        self._on_close()

    # The rest is called by the connection that receives for it.

    @property
    def ended_at_worker(self) -> bool:
        """Whether the worker sent the last of every choice."""
        return not self._running_at_worker

    def accept(self, prompt_tokens: int) -> None:
        """The worker accepted it."""
        self.prompt_tokens = prompt_tokens
        self._accepted = True
        self._wake()

    def fail(self, error: CarpoolError) -> None:
        """It ended with an error; what came before stays readable."""
        self._error = error
        self._wake()

    def feed(self, entry: StepEntry) -> bool:
        """Take what one step gave to one choice; whether the worker should stop that choice."""
        choice = self._choices[entry.index]
        ended_at_worker = entry.finish_reason is not None
        if ended_at_worker:
            self._running_at_worker -= 1
        if choice.finished:
            return False  # a stop string matched while the worker was ahead
        text, matched = choice.push(entry.token_ids)
        if matched is None and ended_at_worker:
            rest, matched = choice.checker.push(choice.detokenizer.flush())
            text += rest + choice.checker.flush()
        finish_reason = entry.finish_reason if matched is None else "stop"
        if finish_reason is not None:
            choice.finished = True
            self._unfinished -= 1
        logprobs = None if entry.logprobs is None else list(self._with_text(entry.token_ids, entry.logprobs))
        self._deltas.append(
            Delta(entry.index, text, finish_reason, logprobs, entry.token_ids, entry.cached_tokens)
        )
        self._wake()
        return choice.finished and not ended_at_worker

    def _with_text(
        self, token_ids: list[int], logprobs: Iterable[tuple[float, list[tuple[int, float]]]]
    ) -> Iterable[TokenLogprob]:
        for token_id, (logprob, top) in zip(token_ids, logprobs, strict=True):
            likeliest = [(other_id, *self._text(other_id), other) for other_id, other in top]
            yield TokenLogprob(token_id, *self._text(token_id), logprob, likeliest)

    def _text(self, token_id: int) -> tuple[str, bytes]:
        data = self._tokenizer.token_bytes[token_id]
        return data.decode("utf-8", "replace"), data
