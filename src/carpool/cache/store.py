"""Where entries outlive the process. Lookups never come here: they are answered from the catalogue."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from carpool.cache.entry import Record


class Store(Protocol):
    """A durable copy of the catalogue.

    `put` and `delete` take effect in the order of the calls, at once and without blocking; the future is
    done when the change is durable and raises `OSError` when it could not be made.
    """

    async def load(self) -> Sequence[Record]:
        """Open the store and read all of it, oldest entry first. Raises `StartError` if it is unusable."""
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
