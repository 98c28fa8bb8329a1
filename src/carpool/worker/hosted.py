"""The seam between a worker's session and the models it hosts."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

from carpool.worker.protocol import Embed, Error, Generate, Knobs, Result, Score, Scores, Step

Emit = Callable[[Step | Error], None]
"""Takes what a generating model sends of its own accord: its steps, and errors that end accepted requests."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is told of a loaded model; the fields are those of `protocol.Loaded`."""

    task: str
    context_length: int
    details: dict[str, str | int | float]
    tokenizer: str | None = None
    dimensions: int | None = None
    memory_bytes: int = 0


class HostedModel(Protocol):
    """A loaded model with its engine running, on the worker's event loop."""

    @property
    def description(self) -> Description:
        """What it is."""
        ...

    @property
    def steps(self) -> int:
        """Batches or steps it has finished, failed ones included."""
        ...

    @property
    def knobs(self) -> Knobs:
        """What is in force."""
        ...

    def tune(self, knobs: Knobs) -> None:
        """Change knobs, from the next batch on. Raises `StartError` or `InvalidConfig` for a bad value."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then free the device."""
        ...


@runtime_checkable
class GeneratingModel(HostedModel, Protocol):
    """A model that writes text. What it generates goes to the `Emit` it was loaded with."""

    async def generate(self, request: Generate, accept: Callable[[int], None]) -> None:
        """Take a request in. Calls `accept` with the number of prompt tokens and returns, or raises.

        After `accept`, and not before, the model emits one finish reason for each choice, or one `Error`.
        Cancelling it before `accept` leaves nothing behind.
        """
        ...

    def cancel(self, request_id: int, index: int | None) -> None:
        """End an accepted request, or one of its choices, with the finish reason `cancelled`."""
        ...


@runtime_checkable
class EmbeddingModel(HostedModel, Protocol):
    """A model that turns inputs into vectors."""

    async def embed(self, request: Embed) -> Result:
        """The vectors. Cancelling it frees what is not computed yet."""
        ...


@runtime_checkable
class ScoringModel(HostedModel, Protocol):
    """A model that tells how well documents answer a query: a reranker, or an embedding model."""

    async def score(self, request: Score) -> Scores:
        """The scores. Cancelling it frees what is not computed yet."""
        ...
