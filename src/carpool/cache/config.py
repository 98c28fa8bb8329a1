"""The settings of the answer cache."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from carpool.errors import StartError

Mode = Literal["on", "exact", "opt-in", "off"]
"""`exact`: never by meaning. `opt-in`: only for requests that ask for it. See `query.resolve_mode`."""

StoreKind = Literal["memory", "sqlite", "redis"]
PolicyName = Literal["verified", "threshold"]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What is cached, where, for how long, and when two questions count as the same."""

    mode: Mode = "on"
    store: StoreKind | None = None
    """Where answers outlive the process; None: `redis` if there is a `url`, else `sqlite`."""
    url: str | None = None
    """The Redis or Valkey (from 7 on) that several servers share: redis://, rediss:// or unix://."""
    path: Path | None = None
    """The SQLite file; None: `cache.sqlite3` in the data directory of the server."""
    policy: PolicyName = "verified"
    """`verified`: a stored question serves a new one if the calibrated probability of the same answer is at
    the level that keeps wrong hits within `max_wrong`. `threshold`: if their cosine is above `threshold`."""
    max_wrong: float = 0.03
    """Bound on wrong hits / hits by meaning; until verdicts prove or refute it here, a target that was kept
    on the calibration's data. Exact repeats are no such hits."""
    threshold: float = 0.8
    """Cosine of the policy `threshold`; also of what differs between two prompts of one template."""
    calibration: Path | None = None
    """A file made by `carpool cache calibrate`; None: the one shipped for the embedder."""
    audit_rate: float = 0.05
    """Share of the judgements by meaning that is sampled for verdicts."""
    judge: str | None = None
    """A served model that gives verdicts by itself, at idle priority."""
    judge_score: float | None = None
    """None: the judge is a chat model. Else a reranker: pairs of questions that it scores lower are wrong."""
    judge_quality: tuple[int, int, int, int] = (0, 0, 0, 0)
    """What it got right where the truth was known: wrong answers caught, of how many; right ones passed, of
    how many."""
    embedder: str = "all-minilm-l6-v2"
    """The served embedding model that turns questions into vectors."""
    ttl_s: float = 7 * 86_400.0
    """Age at which an answer is dropped, in seconds, however often it was used."""
    max_entries: int = 100_000
    max_bytes: int = 512 * 2**20
    """Bound on all entries in memory, vectors included. Besides, ready replies of frequent ones take at most
    a sixteenth of it, for chat completions and again for completions."""
    max_turn_chars: int = 400
    """Longer questions are answered by exact repetition only."""
    lookup_budget_ms: float = 50.0
    """Longest wait for a question's vector, and again for a search by the thread; then it is a miss."""
    temperature_limit: float = 0.3
    """A temperature explicitly set above this asks for variety and bypasses the cache."""

    def __post_init__(self) -> None:
        for name in ("path", "calibration"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, getattr(self, name).expanduser())
        if self.store is None:
            object.__setattr__(self, "store", "redis" if self.url else "sqlite")
        if self.store == "redis" and not (self.url or "").startswith(("redis://", "rediss://", "unix://")):
            # Not quoted: it may hold a password.
            raise StartError("cache.url (or REDIS_URL) must be a redis://, rediss:// or unix:// URL")
        for name, kind in (("mode", Mode), ("store", StoreKind), ("policy", PolicyName)):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise StartError(f"cache.{name} must be one of {allowed}, not {getattr(self, name)!r}")
        if not 0 < self.threshold <= 1:
            raise StartError(f"cache.threshold must be above 0 and at most 1, not {self.threshold}")
        if not 0 < self.max_wrong < 1:
            raise StartError(f"cache.max_wrong must be above 0 and below 1, not {self.max_wrong}")
        if not 0 <= self.audit_rate <= 1:
            raise StartError(f"cache.audit_rate must be from 0 to 1, not {self.audit_rate}")
        caught, wrong, passed, right = self.judge_quality
        if not (0 <= caught <= wrong and 0 <= passed <= right):
            raise StartError(f"cache.judge_quality must be caught, of, passed, of, not {self.judge_quality}")
        if self.judge_score is not None and (self.judge is None or not math.isfinite(self.judge_score)):
            raise StartError("cache.judge_score is a number, for the reranker that cache.judge names")
        if self.judge is not None and not (wrong and right):
            raise StartError("cache.judge needs its measured cache.judge_quality")
        if not self.embedder:
            raise StartError("cache.embedder must name an embedding model")
        for name in ("ttl_s", "max_entries", "max_bytes", "lookup_budget_ms"):
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise StartError(f"cache.{name} must be above 0, not {value}")
        for name in ("max_turn_chars", "temperature_limit"):
            if not getattr(self, name) >= 0:
                raise StartError(f"cache.{name} must not be negative, not {getattr(self, name)}")
