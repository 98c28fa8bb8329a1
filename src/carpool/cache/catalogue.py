"""All entries of this process, in memory: by exact digest, by meaning within a partition, within bounds."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from carpool.cache.config import CacheConfig
from carpool.cache.entry import Entry, Record
from carpool.cache.index import Vector, VectorIndex


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries: those that meet every condition given."""

    tenant: str | None = None
    model: str | None = None
    older_than_s: float | None = None

    def matches(self, entry: Entry, now: float) -> bool:
        """Whether the entry is selected at this time, in Unix seconds."""
        return (
            self.tenant in (None, entry.tenant)
            and self.model in (None, entry.model)
            and (self.older_than_s is None or now - entry.created > self.older_than_s)
        )


class Catalogue:
    """Holds at most `max_entries` entries and `max_bytes` bytes, none older than `ttl_s`.

    What must go for a new entry is what was longest not used. Methods that make entries go return their exact
    digests, so that the store can follow.
    """

    def __init__(self, config: CacheConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()  # least recently used first
        self._by_age: dict[bytes, None] = {}  # oldest first
        self._vector_of: dict[bytes, int] = {}  # dimensions of the entry's vector
        # Vectors of different length never meet: they are of different embedders.
        self._indices: dict[bytes, dict[int, VectorIndex]] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def vectors(self) -> int:
        """How many entries can be found by meaning."""
        return len(self._vector_of)

    def get(self, exact: bytes) -> Entry | None:
        """The entry of this digest, unless it is too old."""
        entry = self._entries.get(exact)
        return None if entry is None or self._expired(entry) else entry

    def touch(self, entry: Entry) -> None:
        """Note that the entry was of use."""
        if entry.exact in self._entries:
            self._entries.move_to_end(entry.exact)

    def index(self, partition: bytes, dimensions: int) -> VectorIndex | None:
        """The vectors of this length in a partition."""
        return self._indices.get(partition, {}).get(dimensions)

    def searchable(self, partition: bytes) -> bool:
        """Whether a search in this partition can find anything."""
        return partition in self._indices

    def add(self, record: Record) -> list[bytes]:
        """Take in an entry in place of the one with its digest. Returns what went for it, maybe itself."""
        entry = record.entry
        self.remove([entry.exact])
        if entry.size_bytes > self._config.max_bytes:
            return [entry.exact]  # rather than everything else
        self._entries[entry.exact] = entry
        self._by_age[entry.exact] = None
        self.size_bytes += entry.size_bytes
        if record.vector is not None:
            self._attach(entry, record.vector)
        return self._evict()

    def attach(self, entry: Entry, vector: Vector) -> list[bytes]:
        """Give an entry that came without one its unit vector. Returns what went for it, maybe itself."""
        if self._entries.get(entry.exact) is not entry:
            return []
        self._attach(entry, vector)
        return self._evict()

    def remove(self, keys: Sequence[bytes]) -> None:
        """Drop entries, known or not."""
        for key in keys:
            entry = self._entries.pop(key, None)
            if entry is None:
                continue
            del self._by_age[key]
            self.size_bytes -= entry.size_bytes
            dimensions = self._vector_of.pop(key, None)
            if dimensions is not None:
                self._detach(entry, dimensions)

    def expire(self) -> list[bytes]:
        """Drop what is too old."""
        expired = []
        for key in self._by_age:
            if not self._expired(self._entries[key]):
                break
            expired.append(key)
        self.remove(expired)
        return expired

    def select(self, selector: Selector) -> list[bytes]:
        """The digests of the selected entries."""
        now = self._clock()
        return [entry.exact for entry in self._entries.values() if selector.matches(entry, now)]

    def _expired(self, entry: Entry) -> bool:
        return self._clock() - entry.created >= self._config.ttl_s

    def _attach(self, entry: Entry, vector: Vector) -> None:
        dimensions = len(vector)
        indices = self._indices.setdefault(entry.partition, {})
        indices.setdefault(dimensions, VectorIndex(dimensions)).add(entry.exact, vector)
        self._vector_of[entry.exact] = dimensions
        self.size_bytes += 4 * dimensions

    def _detach(self, entry: Entry, dimensions: int) -> None:
        indices = self._indices[entry.partition]
        indices[dimensions].remove(entry.exact)
        self.size_bytes -= 4 * dimensions
        if not indices[dimensions]:
            del indices[dimensions]
        if not indices:
            del self._indices[entry.partition]

    def _evict(self) -> list[bytes]:
        evicted = []
        while self._entries and (
            len(self._entries) > self._config.max_entries or self.size_bytes > self._config.max_bytes
        ):
            evicted.append(next(iter(self._entries)))
            self.remove(evicted[-1:])
        return evicted
