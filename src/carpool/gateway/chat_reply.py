"""The bodies and chunks of chat completions."""

from typing import Literal

import msgspec

from carpool.gateway.reply import Piece
from carpool.gateway.usage import Usage
from carpool.worker.generation import TokenLogprob


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


class AssistantMessage(msgspec.Struct, frozen=True):
    """The model's turn."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True):
    """One of the n answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to a message."""

    role: str | None = None
    content: str | None = None


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
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    """Present if asked for: null but in the last chunk."""


class ChatForm:
    """Writes one request's reply."""

    def __init__(self, request_id: str, created: int, model: str, include_usage: bool) -> None:
        self._id = f"chatcmpl-{request_id}"
        self._created = created
        self._model = model
        self._usage = None if include_usage else msgspec.UNSET

    def opening(self, choices: int) -> list[msgspec.Struct]:
        """The chunks that begin each choice."""
        return [self._chunk(ChatChunkChoice(i, ChatDelta("assistant", ""))) for i in range(choices)]

    def chunks(self, piece: Piece) -> list[msgspec.Struct]:
        """The chunks of a piece; none for a piece without text."""
        logprobs = _logprobs(piece.logprobs)
        chunks: list[msgspec.Struct] = []
        if piece.text or logprobs:
            chunks.append(self._chunk(ChatChunkChoice(piece.index, ChatDelta(content=piece.text), logprobs)))
        if piece.finish_reason is not None:
            end = ChatChunkChoice(piece.index, ChatDelta(), finish_reason=piece.finish_reason)
            chunks.append(self._chunk(end))
        return chunks

    def usage_chunk(self, usage: Usage) -> msgspec.Struct:
        """The chunk after the last choice's end."""
        return ChatChunk(id=self._id, created=self._created, model=self._model, choices=[], usage=usage)

    def whole(self, choices: list[list[Piece]], usage: Usage) -> msgspec.Struct:
        """The whole body, from each choice's pieces."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[_choice(index, pieces) for index, pieces in enumerate(choices)],
            usage=usage,
        )

    def _chunk(self, choice: ChatChunkChoice) -> ChatChunk:
        return ChatChunk(
            id=self._id, created=self._created, model=self._model, choices=[choice], usage=self._usage
        )


def _choice(index: int, pieces: list[Piece]) -> ChatChoice:
    logprobs = [token for piece in pieces for token in piece.logprobs or ()]
    return ChatChoice(
        index,
        AssistantMessage("assistant", "".join(piece.text for piece in pieces)),
        _logprobs(logprobs or None),
        pieces[-1].finish_reason or "stop",
    )


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
