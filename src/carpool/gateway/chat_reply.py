"""The bodies and chunks of chat completions."""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from carpool.gateway.sse import TextEvents, event
from carpool.gateway.tool_parser import CallPart, ToolCallParser
from carpool.gateway.usage import Usage
from carpool.worker.generation import Piece, TokenLogprob


class ChatTopLogprob(msgspec.Struct, frozen=True):
    """A token that could have been drawn."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(msgspec.Struct, frozen=True):
    """A token that was drawn."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[ChatTopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """The log-probabilities of a choice's tokens."""

    content: list[ChatLogprob]
    refusal: None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """A function that the model asks to be called."""

    name: str
    arguments: str
    """A JSON object, as text."""


class ToolCall(msgspec.Struct, frozen=True):
    """A tool that the model asks for; its result goes into a message with the role `tool`."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(msgspec.Struct, frozen=True):
    """The model's turn."""

    role: Literal["assistant"]
    content: str | None
    """None where there are only tool calls."""
    refusal: None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    """One of the n answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    """stop, length or tool_calls."""


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class FunctionCallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to a function call."""

    arguments: str
    name: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to a tool call; its first one has the id, the type and the name."""

    index: int
    function: FunctionCallDelta
    id: str | None = None
    type: Literal["function"] | None = None


class ChatDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to a message."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChatChunkChoice(msgspec.Struct, frozen=True):
    """What a chunk adds to a choice."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    """Present if asked for: null but in the last chunk."""


class ChatForm:
    """Writes one request's reply."""

    def __init__(
        self,
        request_id: str,
        created: int,
        model: str,
        include_usage: bool,
        call_parser: Callable[[], ToolCallParser] | None = None,
    ) -> None:
        """`call_parser` makes a parser for each choice, where there may be tool calls."""
        self._id = f"chatcmpl-{request_id}"
        self._created = created
        self._model = model
        self._usage = None if include_usage else UNSET
        self._call_parser = call_parser
        self._parsers: dict[int, ToolCallParser] = {}
        self._texts: dict[int, TextEvents] = {}

    def opening(self, choices: int) -> list[bytes]:
        """The events that begin each choice."""
        return [self._event(ChatChunkChoice(i, ChatDelta("assistant", ""))) for i in range(choices)]

    def events(self, piece: Piece) -> list[bytes]:
        """The events of a piece; none for a piece without text."""
        if self._call_parser is None and piece.logprobs is None and piece.finish_reason is None:
            return [self._text_events(piece.index).event(piece.text)] if piece.text else []
        text, calls, finish_reason = self._apart(piece)
        logprobs = _logprobs(piece.logprobs)
        deltas = [ChatDelta(tool_calls=[_call_delta(call)]) for call in calls]
        if text or (logprobs and not deltas):
            deltas.insert(0, ChatDelta(content=text))
        # The tokens of a piece are told with the first of its chunks.
        chunks = [
            ChatChunkChoice(piece.index, delta, None if place else logprobs)
            for place, delta in enumerate(deltas)
        ]
        if finish_reason is not None:
            chunks.append(ChatChunkChoice(piece.index, ChatDelta(), finish_reason=finish_reason))
        return [self._event(chunk) for chunk in chunks]

    def _text_events(self, index: int) -> TextEvents:
        if index not in self._texts:
            example = ChatChunkChoice(index, ChatDelta(content=TextEvents.HOLE))
            self._texts[index] = TextEvents(self._chunk(example))
        return self._texts[index]

    def usage_event(self, usage: Usage) -> bytes:
        """The event after the last choice's end."""
        return event(
            ChatChunk(id=self._id, created=self._created, model=self._model, choices=[], usage=usage)
        )

    def whole(self, choices: list[list[Piece]], usage: Usage) -> msgspec.Struct:
        """The whole body, from each choice's pieces."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[self._choice(index, pieces) for index, pieces in enumerate(choices)],
            usage=usage,
        )

    def _choice(self, index: int, pieces: list[Piece]) -> ChatChoice:
        logprobs = [token for piece in pieces for token in piece.logprobs or ()]
        text = "".join(piece.text for piece in pieces)
        content, parts, finish_reason = self._apart(Piece(index, text, pieces[-1].finish_reason or "stop"))
        calls = _whole_calls(parts)
        message = AssistantMessage(
            "assistant", content if content or not calls else None, tool_calls=calls or UNSET
        )
        return ChatChoice(index, message, _logprobs(logprobs or None), finish_reason or "stop")

    def _apart(self, piece: Piece) -> tuple[str, list[CallPart], str | None]:
        """What a piece adds to the text and to the calls, and the reason if it is the last."""
        if self._call_parser is None:
            return piece.text, [], piece.finish_reason
        parser = self._parsers.get(piece.index) or self._parsers.setdefault(piece.index, self._call_parser())
        text, calls = parser.push(piece.text)
        if piece.finish_reason is None:
            return text, calls, None
        return text + parser.flush(), calls, parser.ending(piece.finish_reason)

    def _event(self, choice: ChatChunkChoice) -> bytes:
        return event(self._chunk(choice))

    def _chunk(self, choice: ChatChunkChoice) -> ChatChunk:
        return ChatChunk(
            id=self._id, created=self._created, model=self._model, choices=[choice], usage=self._usage
        )


def _call_delta(part: CallPart) -> ToolCallDelta:
    function = FunctionCallDelta(part.arguments, part.name)
    return ToolCallDelta(part.place, function, part.id, None if part.id is None else "function")


def _whole_calls(parts: list[CallPart]) -> list[ToolCall]:
    heads = [(part.id, part.name) for part in parts if part.id is not None and part.name is not None]
    arguments = [""] * len(heads)
    for part in parts:
        arguments[part.place] += part.arguments
    return [
        ToolCall(id_, "function", FunctionCall(name, text))
        for (id_, name), text in zip(heads, arguments, strict=True)
    ]


def _logprobs(tokens: list[TokenLogprob] | None) -> ChatLogprobs | None:
    if tokens is None:
        return None
    return ChatLogprobs(
        [
            ChatLogprob(
                token.text,
                token.logprob,
                list(token.bytes_),
                [ChatTopLogprob(text, logprob, list(data)) for _, text, data, logprob in token.top],
            )
            for token in tokens
        ]
    )
