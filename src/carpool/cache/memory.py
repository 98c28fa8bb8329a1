"""The store that keeps nothing: entries live in the catalogue and end with the process."""

import asyncio
from collections.abc import Sequence

from carpool.cache.entry import Record
from carpool.cache.store import Listener


class MemoryStore:
    """See `store.Store`."""

    async def load(self, listener: Listener) -> Sequence[Record]:  # noqa: ARG002
        """Nothing."""
        return ()

    def put(self, record: Record) -> "asyncio.Future[None]":  # noqa: ARG002
        """Done at once."""
        return _done()

    def delete(self, keys: Sequence[bytes]) -> "asyncio.Future[None]":  # noqa: ARG002
        """Done at once."""
        return _done()

    async def close(self) -> None:
        """Nothing to do."""


def _done() -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
