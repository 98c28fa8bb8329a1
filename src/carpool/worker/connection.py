"""The client's side of one worker life: calls sent, and who waits for their answers."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from carpool.errors import CarpoolError, from_code
from carpool.worker import protocol
from carpool.worker.framing import FramingError, read_frames
from carpool.worker.generation import Generation
from carpool.worker.process import Life
from carpool.worker.watchdog import Watchdog

_log = logging.getLogger(__name__)

_LAST_WORDS_S = 0.5
"""How long the stream of a dead worker may stay open: a process that it started may hold its end."""

News = protocol.Hello | protocol.Progress | protocol.Stats


def _nothing() -> None:
    """What most calls have to do at their end."""


@dataclass(slots=True, eq=False)
class _OpenCall:
    """A call without its end. One of the two gets what comes of it."""

    on_end: Callable[[], None]
    future: asyncio.Future[Any] | None = None
    """Of a `protocol.Call`."""
    generation: Generation | None = None
    """Of a `Generate`."""


class Connection:
    """Sends calls to a worker and routes what comes back.

    A call is in the table until its terminal message, its cancellation or the end of the connection; what
    comes for an id that is not there is late and dropped. `on_news` gets the messages that belong to no call.
    What a call brings as `on_end` is called once, when it leaves the table or is refused.
    """

    def __init__(self, life: Life, on_news: Callable[[News], None], watchdog: Watchdog) -> None:
        self._life = life
        self._watchdog = watchdog
        self._on_news = on_news
        self._open: dict[int, _OpenCall] = {}
        self._refusal: Callable[[], CarpoolError] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_calls(self) -> int:
        """Calls without their terminal message."""
        return len(self._open)

    async def idle(self) -> None:
        """Wait until no call is open."""
        await self._idle.wait()

    async def call(self, message: protocol.Call, on_end: Callable[[], None] = _nothing) -> Any:
        """Send a call and return its terminal message. Raises the `CarpoolError` it ended with.

        Cancelling it cancels the call.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._enter(message.id, _OpenCall(on_end, future=future))
        try:
            await self._life.writer.send(message)
            answer = await future
        except BaseException:
            self.cancel(message.id)
            raise
        if isinstance(answer, CarpoolError):
            raise answer
        return answer

    async def generate(
        self, message: protocol.Generate, generation: Generation, on_end: Callable[[], None] = _nothing
    ) -> None:
        """Send a generation and wait until it is accepted. Raises and is cancelled as `call`."""
        self._enter(message.id, _OpenCall(on_end, generation=generation))
        try:
            await self._life.writer.send(message)
            await generation.accepted()
        except BaseException:
            self.cancel(message.id)
            raise

    def cancel(self, call_id: int) -> None:
        """Take a call back; does nothing if it has ended."""
        if self._close(call_id) and self._refusal is None:
            self._life.writer.write(protocol.Cancel(call_id))

    async def serve(self) -> None:
        """Route messages until the worker is gone, stuck or broken, or its stream turns out to be garbage."""
        reading = asyncio.create_task(self._read())
        waiting = asyncio.create_task(self._life.wait())
        watching = asyncio.create_task(self._watchdog.fault())
        try:
            await asyncio.wait({reading, waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                _log.error("the worker is killed: %s", watching.result())
                self._life.kill()
                return
            if waiting.done():  # what it sent before its end is still read
                await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            waiting.cancel()
            watching.cancel()

    async def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(protocol.FromWorker)
        try:
            async for message in read_frames(self._life.reader, decoder):
                self._route(message)
        except FramingError as error:
            _log.error("the worker's stream is broken: %s", error)

    def end(self, refusal: Callable[[], CarpoolError]) -> None:
        """End every open call with an error of this kind, and refuse new ones with it."""
        self._refusal = refusal
        for call_id in [*self._open]:
            self._fail(call_id, refusal())

    def _enter(self, call_id: int, call: _OpenCall) -> None:
        if self._refusal is not None:
            call.on_end()
            raise self._refusal()
        self._open[call_id] = call
        self._idle.clear()

    def _route(self, message: protocol.FromWorker) -> None:
        self._watchdog.hear(message)
        match message:
            case protocol.Step(entries=entries):
                for entry in entries:
                    self._feed(entry)
            case protocol.Accepted(id=call_id, prompt_tokens=prompt_tokens):
                if (generation := self._generation(call_id)) is not None:
                    generation.accept(prompt_tokens)
            case (
                protocol.Counted()
                | protocol.Result()
                | protocol.Scores()
                | protocol.Weighed()
                | protocol.Loaded()
                | protocol.Done()
            ):
                self._answer(message.id, message)
            case protocol.Error(id=call_id, code=code, message=text, param=param):
                self._fail(call_id, from_code(code, text, param=param, retry_after_s=message.retry_after_s))
            case _:
                self._on_news(message)

    def _generation(self, call_id: int) -> Generation | None:
        call = self._open.get(call_id)
        return None if call is None else call.generation

    def _feed(self, entry: protocol.StepEntry) -> None:
        generation = self._generation(entry.id)
        if generation is None:
            return
        if generation.feed(entry):
            self._life.writer.write(protocol.Cancel(entry.id, entry.index))
        if generation.ended_at_worker:
            self._close(entry.id)

    def _fail(self, call_id: int, error: CarpoolError) -> None:
        generation = self._generation(call_id)
        if generation is None:
            self._answer(call_id, error)
        else:
            generation.fail(error)
            self._close(call_id)

    def _answer(self, call_id: int, answer: Any) -> None:
        call = self._open.get(call_id)
        if call is not None and call.future is not None and not call.future.done():
            call.future.set_result(answer)  # an error too: nobody may be left to retrieve an exception
        self._close(call_id)

    def _close(self, call_id: int) -> bool:
        """Drop a call from the table; whether it was there."""
        call = self._open.pop(call_id, None)
        if call is None:
            return False
        call.on_end()
        if not self._open:
            self._idle.set()
        return True
