"""The knobs of one engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import InvalidConfig

BATCH_SIZE = 32
"""Items per batch."""

TIMEOUT = 0.01
"""The window of system A's wiring, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Bounds of one engine's batches and queue. Costs are in the unit that `submit(cost=...)` uses.

    An encoder passes an item's length in tokens as its cost; with the default of 1.0 cost counts items.
    Raises `InvalidConfig` for a value out of range.
    """

    max_batch_size: int = BATCH_SIZE
    """Items per batch."""

    max_batch_cost: float = math.inf
    """Cost per batch: items times the longest item if `padded`, else the sum. A single item may exceed it."""

    padded: bool = True
    """Whether the model pads a batch to its longest item, so that a batch costs items times longest."""

    batch_wait_ms: float = 0.0
    """0: eager, an idle model starts at once. Above 0: a batch waits this long for company, in ms."""

    max_queue_ms: float = 30_000.0
    """Refuse a task that would wait longer than this by the fitted cost model, in ms of predicted work."""

    max_queue_items: int = 65_536
    """Refuse a task that has this many others ahead; binds before the cost model has seen a batch."""

    bulk_slice_ms: float = 50.0
    """Run of a BULK or IDLE batch that 49 of 50 keep within, in ms: what a more urgent task may wait. Where
    calls are so slow that they would be mostly overhead then, twice that overhead instead."""

    max_overtakes: int = 16
    """Dispatches that may take later arrivals of better fitting length before a task. Half as many batches'
    worth of tasks are searched for similar lengths; 0 keeps the order of arrival, as does `padded=False`."""

    weight: float = 1.0
    """This engine's share of the device under the gate's `wfq` policy, relative to the other engines'."""

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_queue_items"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("max_batch_cost", "max_queue_ms", "bulk_slice_ms", "weight"):
            if not getattr(self, name) > 0:
                raise InvalidConfig(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("batch_wait_ms", "max_overtakes"):
            if not getattr(self, name) >= 0:
                raise InvalidConfig(f"{name} must not be negative, not {getattr(self, name)}")
        if not math.isfinite(self.batch_wait_ms) or not math.isfinite(self.weight):
            raise InvalidConfig("batch_wait_ms and weight must be finite")
