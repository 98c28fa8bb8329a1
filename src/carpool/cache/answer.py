"""A complete answer of a model, as it is replayed and shared."""

from dataclasses import dataclass

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """One finished choice of one request."""

    text: str
    finish_reason: str
    """Only `stop` is ever stored; followers of a request in flight may see `length` and `tool_calls`."""
    prompt_tokens: int
    completion_tokens: int
    request_id: str
    """The `x-request-id` of the request whose answer this is."""
    created: float
    """When it was finished, in Unix seconds."""
    pieces: list[str] = []
    """The text as it was streamed, for replay; empty: `text` in one piece."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored answer that serves a request."""

    answer: Answer
    similarity: float | None
    """The cosine of the two questions; None if they are equal."""
