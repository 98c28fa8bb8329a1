"""The worker's side of the protocol: one connection, served until it ends."""

import asyncio
from functools import partial
from uuid import uuid4

import msgspec

from carpool.errors import InvalidRequest, PayloadTooLarge
from carpool.worker import protocol
from carpool.worker.errors import as_error
from carpool.worker.framing import FrameWriter, read_frames
from carpool.worker.host import ModelHost
from carpool.worker.hosted import EmbeddingModel, GeneratingModel, ScoringModel
from carpool.worker.watchdog import HEARTBEAT_S

_CANCELLABLE = protocol.Generate | protocol.Embed | protocol.Score
Call = protocol.Call | protocol.Generate
End = (
    protocol.Weighed
    | protocol.Loaded
    | protocol.Done
    | protocol.Counted
    | protocol.Result
    | protocol.Scores
    | protocol.Error
)


class _OpenCall:
    """A call without its end."""

    def __init__(self, message: Call, task: "asyncio.Task[End | None]") -> None:
        self.message = message
        self.task = task
        """Computes the end; for a `Generate` it returns when the model has taken the request."""
        self.choices_left = message.n if isinstance(message, protocol.Generate) else 0
        self.model: GeneratingModel | None = None
        """Who has taken the request, and ends it."""


class Session:
    """Serves what comes in over a connection.

    A call is in the table from its message to its end. Whatever would end it a second time finds it gone and
    is dropped, so there is exactly one end.
    """

    def __init__(self, host: ModelHost, reader: asyncio.StreamReader, writer: FrameWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._open: dict[int, _OpenCall] = {}

    @property
    def open_calls(self) -> int:
        """Calls without their end; 0 when idle."""
        return len(self._open)

    async def run(self) -> None:
        """Serve until the other side closes. Raises `FramingError` if it sends garbage."""
        self._writer.write(protocol.Hello(uuid4().hex, self._host.config.device))
        heartbeat = asyncio.create_task(self._send_stats())
        try:
            async for message in read_frames(self._reader, msgspec.msgpack.Decoder(protocol.ToWorker)):
                if isinstance(message, protocol.Cancel):
                    self._cancel(message)
                else:
                    self._begin(message)
        finally:
            heartbeat.cancel()
            for call in self._open.values():
                call.task.cancel()

    # The life of a call.

    def _begin(self, message: Call) -> None:
        task = asyncio.create_task(self._carry_out(message))
        self._open[message.id] = _OpenCall(message, task)
        task.add_done_callback(partial(self._carried_out, message.id))

    def _cancel(self, message: protocol.Cancel) -> None:
        call = self._open.get(message.id)
        if call is None or not isinstance(call.message, _CANCELLABLE):
            return
        if call.model is not None:
            call.model.cancel(message.id, message.index)
        else:
            call.task.cancel()

    def _carried_out(self, call_id: int, task: "asyncio.Task[End | None]") -> None:
        # A callback, because a task that is cancelled before it started runs no code of its own.
        if task.cancelled():
            self._end(protocol.Error(call_id, protocol.CANCELLED, "The request was cancelled."))
        elif (error := task.exception()) is not None:
            self._end(as_error(call_id, error))
        elif (end := task.result()) is not None:
            self._end(end)

    def _end(self, end: End) -> None:
        if self._open.pop(end.id, None) is None:
            return
        try:
            self._writer.write(end)
        except PayloadTooLarge as error:
            self._writer.write(as_error(end.id, error))

    def _emit(self, message: protocol.Step | protocol.Error) -> None:
        """What a generating model sends."""
        if isinstance(message, protocol.Error):
            self._end(message)
            return
        self._writer.write(message)
        for entry in message.entries:
            if entry.finish_reason is not None and (call := self._open.get(entry.id)) is not None:
                call.choices_left -= 1
                if not call.choices_left:
                    del self._open[entry.id]

    # What the calls do.

    async def _carry_out(self, message: Call) -> End | None:
        match message:
            case protocol.Generate():
                await self._generate(message)
                return None
            case protocol.Count():
                counted = await self._generating(message.model).count(message)
                return protocol.Counted(message.id, counted)
            case protocol.Embed():
                return await self._embed(message)
            case protocol.Score():
                return await self._score(message)
            case protocol.Weigh():
                memory_bytes = await self._host.weigh(message, self._emit, self._writer.write)
                return protocol.Weighed(message.id, memory_bytes)
            case protocol.Load():
                return await self._load(message)
            case protocol.Unload():
                await self._host.unload(message.model)
                return protocol.Done(message.id)
            case protocol.Tune():
                self._host.tune(message.model, message.knobs)
                return protocol.Done(message.id)
            case protocol.Set():
                self._host.set(message.key, message.value)
                return protocol.Done(message.id)

    async def _generate(self, request: protocol.Generate) -> None:
        model = self._generating(request.model)

        def accept(prompt_tokens: int) -> None:
            self._open[request.id].model = model
            self._writer.write(protocol.Accepted(request.id, prompt_tokens))

        await model.generate(request, accept)

    def _generating(self, name: str) -> GeneratingModel:
        model = self._host.get(name)
        if not isinstance(model, GeneratingModel):
            raise InvalidRequest(f"The model `{name}` does not generate text.", param="model")
        return model

    async def _embed(self, request: protocol.Embed) -> protocol.Result:
        model = self._host.get(request.model)
        if not isinstance(model, EmbeddingModel):
            raise InvalidRequest(f"The model `{request.model}` does not make embeddings.", param="model")
        return await model.embed(request)

    async def _score(self, request: protocol.Score) -> protocol.Scores:
        model = self._host.get(request.model)
        if not isinstance(model, ScoringModel):
            raise InvalidRequest(f"The model `{request.model}` does not score documents.", param="model")
        return await model.score(request)

    async def _load(self, load: protocol.Load) -> protocol.Loaded:
        model = await self._host.load(load, self._emit, self._writer.write)
        about = model.description
        return protocol.Loaded(
            load.id,
            load.model,
            about.task,
            about.context_length,
            about.details,
            about.tokenizer,
            about.dimensions,
            about.memory_bytes,
            about.revision,
            model.knobs,
            about.tool_form,
        )

    async def _send_stats(self) -> None:
        while True:
            self._writer.write(protocol.Stats(self._host.engines, self._host.registry.snapshot()))
            await asyncio.sleep(HEARTBEAT_S)
