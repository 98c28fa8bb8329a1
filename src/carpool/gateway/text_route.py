"""What chat completions and completions do alike: take a place, read, ask, and send the text."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from carpool.cache.config import Mode
from carpool.cache.query import RequestFields, narrowest
from carpool.errors import CarpoolError
from carpool.gateway.answers import Answers, Question
from carpool.gateway.cache_control import CacheWish, cache_headers
from carpool.gateway.error_reply import envelope
from carpool.gateway.exchange import EVENT_STREAM, JSON, ClientDisconnected, Exchange
from carpool.gateway.repeats import Repeats
from carpool.gateway.reply import Reply
from carpool.gateway.sampling_schema import SamplingFields
from carpool.gateway.services import Services
from carpool.gateway.sse import DONE, raw_event
from carpool.gateway.usage import Usage
from carpool.gateway.validation import BodyReader
from carpool.worker.generation import Piece
from carpool.worker.protocol import Generate
from carpool.worker.refusals import wrong_task
from carpool.worker.states import ModelState

_log = logging.getLogger(__name__)

_LAST_WORDS_S = 5.0
"""How long a stream that failed waits for a client that is too slow for its last event."""


class Form(Protocol):
    """Writes one request's reply in the shape of its route."""

    def opening(self, choices: int) -> list[bytes]:
        """The events that begin a stream."""
        ...

    def events(self, piece: Piece) -> list[bytes]:
        """The events of a piece."""
        ...

    def usage_event(self, usage: Usage) -> bytes:
        """The last event of a stream, if asked for."""
        ...

    def whole(self, choices: list[list[Piece]], usage: Usage) -> msgspec.Struct:
        """The body of a reply that is not streamed."""
        ...


class TextRoute(ABC):
    """An ASGI endpoint that answers with generated text."""

    reader: ClassVar[BodyReader]

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answers = Answers(services.client, services.cache, services.config.request_timeout_s)
        self._repeats = Repeats(services)

    @abstractmethod
    def question(self, request: Any, asked: "Asked") -> Question:
        """What a validated request asks for. Raises `InvalidRequest`."""

    @abstractmethod
    def form(self, request: Any, asked: "Asked") -> Form:
        """The shape of its reply."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        config = self._services.config
        exchange = Exchange(scope, receive, send, config.request_timeout_s)
        with self._services.admission.place(exchange.call.limits):
            body = await exchange.body(config.max_body_bytes)
            if await self._repeats.answer(exchange, body):
                return
            request: SamplingFields = self.reader.read(body)
            request.check()
            state = self._services.client.resolve(request.model)
            if state.task not in (None, "generate"):
                raise wrong_task(state)
            if (self._services.cache is None or state.cache == "off") and state.task == "generate":
                # No answer can be at hand, so a full model refuses before anything else is done.
                self._services.client.check_room(state.name, request.choices)
            asked = Asked(self._services, exchange, request, state)
            try:
                async with exchange.attended():
                    await self._answer(request, asked, body)
            except ClientDisconnected:
                raise
            except Exception as error:
                if not exchange.started or exchange.finished:
                    raise
                await _break_off(exchange, error)

    async def _answer(self, request: SamplingFields, asked: "Asked", body: bytes) -> None:
        question, form = self.question(request, asked), self.form(request, asked)
        lookup, reply = await self._answers.open(question, whole=not request.stream)
        try:
            sending = _Sending(asked, form, reply, lookup.outcome)
            choices = question.choices
            if request.stream:
                await asked.exchange.start([*EVENT_STREAM, *cache_headers(lookup)])
                await sending.stream(choices, request.include_usage)
            else:
                whole = await sending.whole(choices)
                self._repeats.remember(
                    asked.exchange, asked.state, body, question.query, lookup, reply.tokens, whole
                )
                await asked.exchange.reply(whole, [*JSON, *cache_headers(lookup)])
        finally:
            await reply.aclose()


class Asked:
    """A validated request in its surroundings; builds what is alike for chat completions and completions."""

    def __init__(
        self, services: Services, exchange: Exchange, request: SamplingFields, state: ModelState
    ) -> None:
        self.services = services
        self.exchange = exchange
        self.model = state.name
        self.state = state
        self.cache = None if state.cache == "off" else services.cache
        """Where an answer may be at hand."""
        self.created = int(time.time())
        self._request = request
        self._sampling = request.sampling()

    @property
    def request_id(self) -> str:
        """The `x-request-id`."""
        return self.exchange.call.request_id

    def generate(self, max_tokens: int | None, top_logprobs: int | None, **prompt: Any) -> Generate:
        """The call to the worker."""
        return Generate(
            id=0,
            model=self.model,
            max_tokens=max_tokens,
            n=self._request.n or 1,
            temperature=self._request.temperature,
            top_logprobs=top_logprobs,
            tenant=self.exchange.call.tenant,
            timeout_s=self.exchange.deadline.left_s,
            **prompt,
            **self._sampling,
        )

    def query_fields(self, max_tokens: int | None, top_logprobs: int | None) -> RequestFields:
        """What the cache needs to know of it."""
        request, call = self._request, self.exchange.call
        wish = CacheWish.of(self.exchange.header(b"cache-control"), request.carpool)
        return RequestFields(
            tenant=call.tenant,
            model=self.model,
            revision=self.state.revision or "",
            parameters={**self._sampling, "stop": request.stops or None},
            temperature=request.temperature,
            n=request.n or 1,
            logprobs=top_logprobs is not None,
            max_tokens=max_tokens,
            user=request.user if call.per_user else None,
            mode=self._cache_mode(wish.mode),
            requested=wish.mode,
            no_cache=wish.no_cache,
            no_store=wish.no_store,
        )

    def _cache_mode(self, requested: Mode | None) -> Mode | None:
        """What is set for the key and for the model, where anything is."""
        call = self.exchange.call
        if self.state.revision is None:
            return "off"  # it is fetched for the first time, and which model will come is not known
        if call.per_user and self._request.user is None:
            return "off"  # whose answers these are is not known
        configured = [mode for mode in (call.cache, self.state.cache) if mode is not None]
        return narrowest(configured, requested) if configured else None


class _Sending:
    """Reads a reply and puts it in form."""

    def __init__(self, asked: Asked, form: Form, reply: Reply, outcome: str) -> None:
        self._exchange = asked.exchange
        self._metrics = asked.services.metrics
        self._model = asked.model
        self._form = form
        self._reply = reply
        self._outcome = outcome
        self._begun = False
        """Whether some of the text was sent."""

    async def whole(self, choices: int) -> bytes:
        """The body of a reply that is not streamed."""
        pieces_of: list[list[Piece]] = [[] for _ in range(choices)]

        def take(pieces: Sequence[Piece]) -> None:
            for piece in pieces:
                pieces_of[piece.index].append(piece)

        await self._reply.deliver(take)
        return msgspec.json.encode(self._form.whole(pieces_of, self._usage()))

    async def stream(self, choices: int, include_usage: bool) -> None:
        """Send the body of a stream."""
        form, exchange = self._form, self._exchange
        await exchange.write(b"".join(form.opening(choices)))
        await self._reply.deliver(self._write)
        usage = self._usage()
        await exchange.finish((form.usage_event(usage) if include_usage else b"") + DONE)

    def _write(self, pieces: Sequence[Piece]) -> None:
        """Send what came together as one part of the stream."""
        events = b"".join([event for piece in pieces for event in self._form.events(piece)])
        if not events:
            return
        if not self._begun:
            self._begun = True
            self._metrics.first_token(self._exchange.call.age_s, self._model, self._outcome)
        self._exchange.push(events)

    def _usage(self) -> Usage:
        usage = Usage.of(self._reply.tokens)
        self._metrics.answered(self._model, self._outcome, usage.prompt_tokens, usage.completion_tokens)
        return usage


async def _break_off(exchange: Exchange, error: Exception) -> None:
    """End a stream whose status is out with the error as its last event, and without `[DONE]`.

    Raises the error if the client does not take it: who reads nothing must not keep a place for ever.
    """
    if not isinstance(error, CarpoolError):
        _log.error("request %s failed", exchange.call.request_id, exc_info=error)
        error = CarpoolError("The server failed while it worked on this request.")
    exchange.call.error = error.code
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            await exchange.finish(raw_event(envelope(error)))
    except TimeoutError:
        exchange.abandon()
        raise error from None
