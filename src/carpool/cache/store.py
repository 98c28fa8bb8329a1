"""Where entries outlive the process. Lookups never come here: they are answered from the catalogue."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from carpool.cache.entry import Record


class Listener(Protocol):
    """What a store tells of what other processes do to it, and asks when it must be brought up to date."""

    def added(self, records: Sequence[Record]) -> None:
        """Others keep these now, or they were found; known ones are among them."""
        ...

    def removed(self, keys: Sequence[bytes]) -> None:
        """Others have dropped the entries with these exact digests."""
        ...

    def held(self) -> list[bytes]:
        """The digests of what this process holds and has given to the store."""
        ...

    def record(self, key: bytes) -> Record | None:
        """What it holds under a digest."""
        ...

    def reachable(self, error: Exception | None) -> None:
        """The store cannot be reached, or (None) it can again."""
        ...


class Store(Protocol):
    """A durable copy of the catalogue.

    `put` and `delete` take effect in the order of the calls, at once and without blocking; the future is
    done when the change is durable and raises `OSError` when it could not be made.
    """

    async def load(self, listener: Listener) -> Sequence[Record]:
        """Open the store and read all of it, oldest entry first. Raises `StartError` if it is unusable.

        `listener` is told what other processes change from then on, where they share the store.
        """
        ...

    def put(self, record: Record) -> "asyncio.Future[None]":
        """Keep a record in place of the one with the same exact digest."""
        ...

    def delete(self, keys: Sequence[bytes]) -> "asyncio.Future[None]":
        """Forget the records with these exact digests."""
        ...

    async def close(self) -> None:
        """Make everything durable and let go."""
        ...
