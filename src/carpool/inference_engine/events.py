"""What an engine tells its observer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Release(StrEnum):
    """Why a batch left."""

    IDLE = "idle"
    """The model was free, so whatever waited went (eager rule)."""
    FULL = "full"
    """A bound on items or cost was reached."""
    WINDOW = "window"
    """The oldest task had waited for the whole window."""
    DEADLINE = "deadline"
    """Waiting for the rest of the window would have cost a task its deadline."""


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """One call of the model function."""

    model: str
    items: int
    cost: float
    """Cost of the call with padding, in the unit of `submit(cost=...)`."""
    padding_share: float
    """Part of `cost` that is padding, 0 to 1."""
    wait_ms: float
    """From the arrival of the task that waited longest to the call."""
    run_ms: float
    release: Release
    policy: str
    """The device gate's policy at the time."""
    failed: bool
    """The call raised or returned a wrong number of results."""


Observer = Callable[[BatchEvent], object]
