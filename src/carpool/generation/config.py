"""The knobs of one generation engine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from carpool.errors import StartError


class Mode(StrEnum):
    """When waiting requests join those that run."""

    CONTINUOUS = "continuous"
    """Between any two steps, as soon as there is a seat and memory."""
    STATIC = "static"
    """Only when nothing runs: the classic request batches, for comparison. A batch leaves with `max_num_seqs`
    sequences or after `admission_window_ms`, and the next one when its last sequence has ended. Who ends
    earlier gets its answer at once, but leaves an empty seat."""


STATIC_DEFAULTS: Final[Mapping[str, Any]] = {"max_num_seqs": 8, "admission_window_ms": 50.0}
"""What the worker takes in static mode where nothing else is set: 8 requests or 50 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """Bounds of one engine's steps, memory and queue. Raises `StartError` for a value out of range."""

    mode: Mode = Mode.CONTINUOUS

    max_num_seqs: int = 64
    """Sequences that run together (`MAX_BATCH_SIZE`)."""

    max_num_batched_tokens: int = 512
    """Tokens of one step: decoding sequences take one each, prompt chunks share the rest. Larger steps
    prefill faster and hold up the decoding sequences longer. At least `max_num_seqs` plus one KV block."""

    reserve_tokens: int = 512
    """Output tokens whose memory is promised at admission, for requests that may generate as many. Static
    batches promise all of `max_tokens`, so that none of them is split."""

    admission_window_ms: float = 0.0
    """`BATCH_WAIT_MS`: how long the first request waits for company when nothing runs, in ms."""

    prefix_cache: bool = True
    """Whether requests share the KV memory of equal beginnings."""

    max_queue_ms: float = 120_000.0
    """Refuse a request that would wait longer than this by the fitted cost model, in ms of predicted work."""

    max_queue_seqs: int = 1024
    """Refuse a request that has this many sequences ahead; binds before the cost model has seen a step."""

    weight: float = 1.0
    """This engine's share of the device under the gate's `wfq` policy, relative to the other engines'."""

    max_step_failures: int = 3
    """Steps that may fail one after the other before the engine calls itself unhealthy."""

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "reserve_tokens", "max_queue_seqs"):
            if getattr(self, name) < 1:
                raise StartError(f"{name} must be at least 1, not {getattr(self, name)}", param=name)
        if self.max_step_failures < 1:
            raise StartError(
                f"max_step_failures must be at least 1, not {self.max_step_failures}",
                param="max_step_failures",
            )
        for name in ("max_queue_ms", "weight"):
            if not getattr(self, name) > 0:
                raise StartError(f"{name} must be above 0, not {getattr(self, name)}", param=name)
        if not 0 <= self.admission_window_ms < math.inf:
            raise StartError(
                f"admission_window_ms must be finite and not negative, not {self.admission_window_ms}",
                param="admission_window_ms",
            )
