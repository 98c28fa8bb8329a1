"""The settings of the answer cache."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from carpool.errors import StartError

Mode = Literal["on", "exact", "opt-in", "off"]
"""`exact`: never by meaning. `opt-in`: only for requests that ask for it. See `query.resolve_mode`."""

StoreKind = Literal["memory", "sqlite"]
Policy = Literal["threshold"]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What is cached, where, for how long, and when two questions count as the same."""

    mode: Mode = "on"
    store: StoreKind = "sqlite"
    path: Path | None = None
    """The SQLite file; None: `cache.sqlite3` in the data directory of the server."""
    policy: Policy = "threshold"
    """`threshold`: a stored question serves a new one if their cosine is above `threshold`."""
    threshold: float = 0.8
    embedder: str = "all-minilm-l6-v2"
    """The served embedding model that turns questions into vectors."""
    ttl_s: float = 7 * 86_400.0
    """Age at which an answer is dropped, in seconds, however often it was used."""
    max_entries: int = 100_000
    max_bytes: int = 512 * 2**20
    """Bound on all entries in memory, vectors included."""
    max_turn_chars: int = 400
    """Longer questions are answered by exact repetition only."""
    lookup_budget_ms: float = 50.0
    """Longest time that a search by meaning may take, embedding included; then it is a miss."""
    temperature_limit: float = 0.3
    """A temperature explicitly set above this asks for variety and bypasses the cache."""

    def __post_init__(self) -> None:
        if self.path is not None:
            object.__setattr__(self, "path", self.path.expanduser())
        for name, kind in (("mode", Mode), ("store", StoreKind), ("policy", Policy)):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise StartError(f"cache.{name} must be one of {allowed}, not {getattr(self, name)!r}")
        if not 0 < self.threshold <= 1:
            raise StartError(f"cache.threshold must be above 0 and at most 1, not {self.threshold}")
        if not self.embedder:
            raise StartError("cache.embedder must name an embedding model")
        for name in ("ttl_s", "max_entries", "max_bytes", "lookup_budget_ms"):
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise StartError(f"cache.{name} must be above 0, not {value}")
        for name in ("max_turn_chars", "temperature_limit"):
            if not getattr(self, name) >= 0:
                raise StartError(f"cache.{name} must not be negative, not {getattr(self, name)}")
