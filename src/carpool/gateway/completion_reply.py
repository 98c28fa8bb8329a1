"""The bodies and chunks of completions."""

from typing import Literal

import msgspec

from carpool.gateway.sse import TextEvents, event
from carpool.gateway.usage import Usage
from carpool.worker.generation import Piece, TokenLogprob


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """The log-probabilities of a text's tokens, in parallel lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]
    """Where each token begins in the text, in characters."""


class CompletionChoice(msgspec.Struct, frozen=True):
    """One of the texts, or in a stream what is added to it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply, or one event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET


class CompletionForm:
    """Writes one request's reply."""

    def __init__(self, request_id: str, created: int, model: str, include_usage: bool) -> None:
        self._id = f"cmpl-{request_id}"
        self._created = created
        self._model = model
        self._usage = None if include_usage else msgspec.UNSET
        self._offsets: dict[int, int] = {}
        self._texts: dict[int, TextEvents] = {}

    def opening(self, choices: int) -> list[bytes]:  # noqa: ARG002  # chat has one per choice
        """A stream of completions begins with its text."""
        return []

    def events(self, piece: Piece) -> list[bytes]:
        """The event of a piece; none for a piece that adds nothing."""
        if not (piece.text or piece.logprobs or piece.finish_reason):
            return []
        if piece.logprobs is None and piece.finish_reason is None:
            return [self._text_events(piece.index).event(piece.text)]
        return [event(self._body([self._choice(piece)], self._usage))]

    def _text_events(self, index: int) -> TextEvents:
        if index not in self._texts:
            example = self._choice(Piece(index, TextEvents.HOLE))
            self._texts[index] = TextEvents(self._body([example], self._usage))
        return self._texts[index]

    def usage_event(self, usage: Usage) -> bytes:
        """The event after the last choice's end."""
        return event(self._body([], usage))

    def whole(self, choices: list[list[Piece]], usage: Usage) -> msgspec.Struct:
        """The whole body, from each choice's pieces."""
        texts = [
            Piece(
                index,
                "".join(piece.text for piece in pieces),
                pieces[-1].finish_reason or "stop",
                [token for piece in pieces for token in piece.logprobs or ()] or None,
            )
            for index, pieces in enumerate(choices)
        ]
        return self._body([self._choice(text) for text in texts], usage)

    def _body(self, choices: list[CompletionChoice], usage: Usage | msgspec.UnsetType | None) -> Completion:
        return Completion(id=self._id, created=self._created, model=self._model, choices=choices, usage=usage)

    def _choice(self, piece: Piece) -> CompletionChoice:
        logprobs = None if piece.logprobs is None else self._logprobs(piece.index, piece.logprobs)
        return CompletionChoice(piece.index, piece.text, logprobs, piece.finish_reason)

    def _logprobs(self, index: int, tokens: list[TokenLogprob]) -> CompletionLogprobs:
        offset, offsets = self._offsets.get(index, 0), []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        self._offsets[index] = offset
        return CompletionLogprobs(
            [token.text for token in tokens],
            [token.logprob for token in tokens],
            [{text: logprob for _, text, _, logprob in token.top} for token in tokens],
            offsets,
        )
