"""One request and its reply over ASGI: a bounded body, a whole or streamed reply, a client who may leave."""

import asyncio
from collections.abc import Awaitable, Generator, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from starlette.types import Message, Receive, Scope, Send

from carpool.errors import PayloadTooLarge
from carpool.gateway.call import Call, Headers, header
from carpool.gateway.deadline import Deadline, TimeLimit

JSON: Headers = [(b"content-type", b"application/json")]
EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


Result = TypeVar("Result")


class ClientDisconnected(Exception):
    """Nobody is there to take the reply."""


class _Begun(Generic[Result]):
    """An awaitable that went as far as it goes without waiting.

    If it has not `ended`, it is either awaited for the rest, or stepped whenever the future that it
    `waits_for` is done (None: in the next turn of the event loop), which needs no task. Outside of a task it
    cannot use what belongs to one, such as `asyncio.timeout`.
    """

    result: Result
    """Once it has `ended`."""

    def __init__(self, awaitable: Awaitable[Result]) -> None:
        self.ended = False
        self._steps = awaitable.__await__()
        self.step()

    def step(self, error: BaseException | None = None) -> None:
        """Go on, when what it waited for is there, or with the error that its waiting ended with."""
        try:
            self.waits_for = next(self._steps) if error is None else self._steps.throw(error)
        except StopIteration as end:
            self.ended, self.result = True, end.value

    def __await__(self) -> Generator[Any, Any, Result]:
        while not self.ended:
            try:
                yield self.waits_for
            except BaseException as error:  # the awaitable's, as it would be had it been awaited at once
                self.step(error)
            else:
                self.step()
        return self.result

    def close(self) -> None:
        """Leave the rest undone."""
        self._steps.close()


class Exchange:
    """The two directions of one HTTP request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, longest_s: float | None = None) -> None:
        """`longest_s` bounds how long it may take; None: for ever. Raises `InvalidRequest` as `Deadline`."""
        self.scope = scope
        self.call = Call.of(scope)
        self.deadline = Deadline.of(scope, longest_s)
        self.started = False
        """Whether the status went out."""
        self.finished = False
        """Whether the reply is complete; its last part may still be on its way."""
        self.receive = receive
        self._send = send
        self._held: list[bytes] = []
        """What was pushed while the client was slow."""
        self._pushing: asyncio.Task[None] | None = None
        """Sends it."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a request header; `name` in lower case."""
        return header(self.scope, name)

    async def body(self, max_bytes: int) -> bytes:
        """The request's body.

        Raises `PayloadTooLarge`, before any of it is read where it announces its length, `DeadlineExceeded`
        for a body that does not end, and `ClientDisconnected`.
        """
        announced = self.header(b"content-length")
        reading = _Begun(self._read(int(announced) if announced and announced.isdigit() else 0, max_bytes))
        if reading.ended:  # mostly all of it is there already
            return reading.result
        async with TimeLimit(self.deadline, "The body did not come"):
            return await reading

    async def _read(self, announced: int, max_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size, more = announced, announced <= max_bytes
        received = 0
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunks.append(message.get("body", b""))
            received += len(chunks[-1])
            size = max(size, received)
            more = message.get("more_body", False) and size <= max_bytes
        if size > max_bytes:
            raise PayloadTooLarge(f"The body is larger than {max_bytes} bytes (gateway.max_body_bytes).")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def attended(self) -> "Attendance":
        """Run the block as long as the client waits for it, after its body was read.

        The block is cancelled and `ClientDisconnected` raised when the client leaves; `DeadlineExceeded`
        when the deadline passes.
        """
        return Attendance(self)

    async def start(self, headers: Headers, status: int = 200) -> None:
        """Send the status."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self.started = True

    def write(self, data: bytes) -> Awaitable[None]:
        """Send a part of the body, which may be empty; more follow."""
        return self._send({"type": "http.response.body", "body": data, "more_body": True})

    def push(self, data: bytes) -> None:
        """`write` from a callback. What the client is too slow for is held, and leaves a little later."""
        if self._pushing is not None:
            self._held.append(data)
            return
        sending = _Begun(self.write(data))
        if not sending.ended:
            self._pushing = asyncio.create_task(self._push_on(sending))

    async def _push_on(self, sending: Awaitable[None]) -> None:
        await sending
        while self._held:
            data, self._held = b"".join(self._held), []
            await self.write(data)
        self._pushing = None

    async def finish(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        if self._pushing is not None:
            # Shielded: when the time is up meanwhile, what was pushed still leaves, and the error after it.
            await asyncio.shield(self._pushing)
        self.finished = True
        await self._send({"type": "http.response.body", "body": data})

    def abandon(self) -> None:
        """Send nothing more of what was pushed."""
        if self._pushing is not None:
            self._pushing.cancel()

    async def reply(self, body: bytes, headers: Headers) -> None:
        """Answer 200 with a whole body."""
        await self.start([*headers, (b"content-length", b"%d" % len(body))])
        await self.finish(body)

    async def reply_unattended(self, body: bytes, headers: Headers) -> None:
        """`reply` outside of `attended`. Raises `DeadlineExceeded` for a client that does not read."""
        sending = _Begun(self.reply(body, headers))
        if not sending.ended:
            async with TimeLimit(self.deadline, "The reply was not taken"):
                await sending

    async def reply_in_slices(self, slices: Iterator[bytes], headers: Headers) -> None:
        """Answer 200 with a body whose parts are made one by one, others going on in between."""
        part = next(slices)
        following = next(slices, None)
        if following is None:
            await self.reply(part, headers)
            return
        await self.start(headers)
        while following is not None:
            await self.write(part)
            await asyncio.sleep(0)
            part, following = following, next(slices, None)
        await self.finish(part)


class Attendance(TimeLimit):
    """A time limit, and an eye on whether the client is still there."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.deadline, "The request was not answered")
        self._exchange = exchange
        self._start: asyncio.Handle | None = None
        self._receiving: _Begun[Message] | None = None
        self._over = False

    async def __aenter__(self) -> None:
        await super().__aenter__()
        # In the loop's next turn: what is refused at once needs no watch.
        self._start = asyncio.get_running_loop().call_soon(self._watch)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        try:
            if self._receiving is not None:
                self._receiving.close()
            elif self._start is not None:
                self._start.cancel()
            # Both lead back here; what is no cycle is freed at once, without a search for garbage.
            self._receiving = self._start = None
        finally:
            await super().__aexit__(kind, error, trace)

    def _watch(self, _: object = None) -> None:
        """Look at what the client sends. Called back for more, since a task costs more."""
        if self._over:
            return
        if self._receiving is None:
            self._receiving = _Begun(self._exchange.receive())
        else:
            self._receiving.step()
        while self._receiving.ended:
            if self._receiving.result["type"] == "http.disconnect":
                if not self._exchange.finished:  # servers also say so when the reply is complete
                    self.end(ClientDisconnected())
                return
            self._receiving = _Begun(self._exchange.receive())
        if (news := self._receiving.waits_for) is None:  # only for its turn
            asyncio.get_running_loop().call_soon(self._watch)
        else:
            news.add_done_callback(self._watch)
