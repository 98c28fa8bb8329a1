"""The seam between a worker's session and the models it hosts.

Base classes instead of protocols: a session asks of every call's model whether it can do it, and `isinstance`
takes a hundred times longer for a protocol.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from carpool.worker.protocol import Count, Embed, Error, Generate, Knobs, Result, Score, Scores, Step

Emit = Callable[[Step | Error], None]
"""Takes what a generating model sends of its own accord: its steps, and errors that end accepted requests."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is told of a loaded model; the fields are those of `protocol.Loaded`."""

    task: str
    context_length: int
    revision: str | None
    details: dict[str, str | int | float]
    tokenizer: str | None = None
    dimensions: int | None = None
    memory_bytes: int = 0
    tool_form: str | None = None


class HostedModel(ABC):
    """A loaded model with its engine running, on the worker's event loop."""

    description: Description
    """What it is."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Batches or steps that the device has finished; failed ones do not count."""

    @property
    @abstractmethod
    def has_work(self) -> bool:
        """Whether a batch or step is due or running, also one whose requests have all ended meanwhile."""

    @property
    @abstractmethod
    def healthy(self) -> bool:
        """Whether it can compute at all; otherwise its process must be replaced."""

    @property
    @abstractmethod
    def knobs(self) -> Knobs:
        """What is in force."""

    @abstractmethod
    def tune(self, knobs: Knobs) -> None:
        """Change knobs, from the next batch on. Raises `StartError` or `InvalidConfig` for a bad value."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted, then free the device."""


class GeneratingModel(HostedModel):
    """A model that writes text. What it generates goes to the `Emit` it was loaded with."""

    @abstractmethod
    async def generate(self, request: Generate, accept: Callable[[int], None]) -> None:
        """Take a request in. Calls `accept` with the number of prompt tokens and returns, or raises.

        After `accept`, and not before, the model emits one finish reason for each choice, or one `Error`.
        Cancelling it before `accept` leaves nothing behind.
        """

    @abstractmethod
    async def count(self, request: Count) -> int:
        """How many tokens `generate` would find in this prompt. Raises as it does."""

    @abstractmethod
    def cancel(self, request_id: int, index: int | None) -> None:
        """End an accepted request, or one of its choices, with the finish reason `cancelled`."""


class EmbeddingModel(HostedModel):
    """A model that turns inputs into vectors."""

    @abstractmethod
    async def embed(self, request: Embed) -> Result:
        """The vectors. Cancelling it frees what is not computed yet."""


class ScoringModel(HostedModel):
    """A model that tells how well documents answer a query: a reranker, or an embedding model."""

    @abstractmethod
    async def score(self, request: Score) -> Scores:
        """The scores. Cancelling it frees what is not computed yet."""
