"""A listener for stores under test: it holds what it is told."""

from collections.abc import Sequence

from carpool.cache.entry import Record


class HoldingListener:
    """See `store.Listener`."""

    def __init__(self) -> None:
        self.records: dict[bytes, Record] = {}
        self.errors: list[Exception | None] = []

    def added(self, records: Sequence[Record]) -> None:
        self.records.update({record.entry.exact: record for record in records})

    def removed(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.records.pop(key, None)

    def held(self) -> list[bytes]:
        return list(self.records)

    def record(self, key: bytes) -> Record | None:
        return self.records.get(key)

    def reachable(self, error: Exception | None) -> None:
        self.errors.append(error)


SILENT = HoldingListener()
"""For stores that tell nothing."""
