"""All entries of this process, in memory: by exact digest, by meaning within a partition, within bounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from carpool.cache.config import CacheConfig
from carpool.cache.entry import Entry, Record
from carpool.cache.index import Vector, VectorIndex, stored_bytes
from carpool.cache.ranking import Ranking


@dataclass(slots=True, eq=False)
class Kept:
    """An entry and what is known of its life here."""

    entry: Entry
    dimensions: int = 0
    """Of its vector; 0 without one."""
    hits: int = 0

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return self.entry.size_bytes + (stored_bytes(self.dimensions) if self.dimensions else 0)

    @property
    def usefulness(self) -> float:
        """Milliseconds that a byte of it has saved so far, its own first answer counted as a use."""
        return (1 + self.hits) * max(1.0, self.entry.cost_ms) / self.size_bytes


class Catalogue:
    """Holds at most `max_entries` entries and `max_bytes` bytes, none older than `ttl_s`.

    What must go for a new entry is what is least useful: GreedyDual-Size-Frequency (Cherkasova, "Improving
    WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs HPL-98-69, 1998). An
    entry's rank is its usefulness plus the rank of what was evicted last when this one was last used, so that
    what was useful long ago ages. Methods that make entries go return their exact digests, so that the store
    can follow.
    """

    def __init__(self, config: CacheConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._kept: dict[bytes, Kept] = {}
        self._by_usefulness = Ranking()
        self._by_age = Ranking()
        self._inflation = 0.0
        """The rank of the entry evicted last."""
        # Vectors of different length never meet: they are of different embedders.
        self._indices: dict[bytes, dict[int, VectorIndex]] = {}
        self.size_bytes = 0
        self.vectors = 0
        """How many entries can be found by meaning."""

    def __len__(self) -> int:
        return len(self._kept)

    def keys(self) -> list[bytes]:
        """The exact digests of all entries."""
        return list(self._kept)

    def get(self, exact: bytes) -> Entry | None:
        """The entry of this digest, unless it is too old."""
        kept = self._kept.get(exact)
        return None if kept is None or self._expired(kept.entry.created) else kept.entry

    def kept(self, exact: bytes) -> Kept | None:
        """The same, with what is known of its life."""
        return None if self.get(exact) is None else self._kept[exact]

    def record(self, exact: bytes) -> Record | None:
        """The same, with its vector."""
        kept = self.kept(exact)
        if kept is None:
            return None
        index = self.index(kept.entry.partition, kept.dimensions)
        return Record(kept.entry, None if index is None else index.vector(exact))

    def touch(self, entry: Entry) -> None:
        """Note that the entry was of use."""
        kept = self._kept.get(entry.exact)
        if kept is not None:
            kept.hits += 1
            self._by_usefulness.raise_to(entry.exact, self._inflation + kept.usefulness)

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
        kept = Kept(entry, 0 if record.vector is None else len(record.vector))
        if kept.size_bytes > self._config.max_bytes:
            return [entry.exact]  # rather than everything else
        self._kept[entry.exact] = kept
        self._by_age.add(entry.exact, entry.created)
        self._by_usefulness.add(entry.exact, self._inflation + kept.usefulness)
        self.size_bytes += kept.size_bytes
        if record.vector is not None:
            self._put_vector(kept, record.vector)
        return self._evict()

    def attach(self, entry: Entry, vector: Vector) -> list[bytes]:
        """Give an entry that came without one its unit vector. Returns what went for it, maybe itself."""
        kept = self._kept.get(entry.exact)
        if kept is None or kept.entry is not entry:
            return []
        kept.dimensions = len(vector)
        self.size_bytes += stored_bytes(kept.dimensions)
        self._by_usefulness.discard(entry.exact)  # a byte of it is of less use now
        self._by_usefulness.add(entry.exact, self._inflation + kept.usefulness)
        self._put_vector(kept, vector)
        return self._evict()

    def remove(self, keys: Sequence[bytes]) -> None:
        """Drop entries, known or not."""
        for key in keys:
            kept = self._kept.pop(key, None)
            if kept is None:
                continue
            self._by_age.discard(key)
            self._by_usefulness.discard(key)
            self.size_bytes -= kept.size_bytes
            if kept.dimensions:
                self._drop_vector(kept)

    def expire(self) -> list[bytes]:
        """Drop what is too old."""
        expired = []
        while (oldest := self._by_age.smallest()) is not None and self._expired(oldest[1]):
            expired.append(oldest[0])
            self.remove(expired[-1:])
        return expired

    def _expired(self, created: float) -> bool:
        return self._clock() - created >= self._config.ttl_s

    def _put_vector(self, kept: Kept, vector: Vector) -> None:
        indices = self._indices.setdefault(kept.entry.partition, {})
        indices.setdefault(kept.dimensions, VectorIndex(kept.dimensions)).add(kept.entry.exact, vector)
        self.vectors += 1

    def _drop_vector(self, kept: Kept) -> None:
        indices = self._indices[kept.entry.partition]
        indices[kept.dimensions].remove(kept.entry.exact)
        self.vectors -= 1
        if not indices[kept.dimensions]:
            del indices[kept.dimensions]
        if not indices:
            del self._indices[kept.entry.partition]

    def _evict(self) -> list[bytes]:
        evicted = []
        while len(self._kept) > self._config.max_entries or self.size_bytes > self._config.max_bytes:
            least = self._by_usefulness.smallest()
            if least is None:
                break
            evicted.append(least[0])
            self._inflation = least[1]
            self.remove(evicted[-1:])
        return evicted
