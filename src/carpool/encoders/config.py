"""The knobs of one encoder."""

import math
from dataclasses import dataclass
from typing import Literal

from carpool.errors import StartError


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Precision, and bounds of batches and queue. Raises `StartError` for a value out of range."""

    precision: Literal["f32", "bf16"] | None = None
    """What the forward pass computes in; None: bf16 where the CPU has it, else f32."""

    weights: Literal["auto", "int8"] = "auto"
    """How the layers' matrices are held: as in the checkpoint, or in eight bits with one scale per row."""

    max_batch_size: int = 64
    """Inputs per batch (`MAX_BATCH_SIZE`)."""

    max_batch_tokens: int = 2048
    """Tokens per batch, with padding to the longest where each input has a row. One input may have more."""

    batch_wait_ms: float = 0.0
    """`BATCH_WAIT_MS`: how long a batch waits for company, in ms. 0: an idle model starts at once."""

    max_queue_ms: float = 120_000.0
    """Refuse an input that would wait longer than this by the fitted cost model, in ms of predicted work."""

    bulk_slice_ms: float = 100.0
    """Longest batch of bulk calls, in ms: what a query may wait for them. In f32 on two cores MiniLM computes
    about 400 tokens in it, each for 13 % more than in a full batch; in half the time it would be 24 %."""

    weight: float = 1.0
    """This model's share of the device under the gate's `wfq` policy, relative to the other models'."""

    def __post_init__(self) -> None:
        if self.precision not in (None, "f32", "bf16"):
            raise StartError(f"precision must be f32 or bf16, not {self.precision!r}", param="precision")
        if self.weights not in ("auto", "int8"):
            raise StartError(f"weights must be auto or int8, not {self.weights!r}", param="weights")
        for name in ("max_batch_size", "max_batch_tokens"):
            if getattr(self, name) < 1:
                raise StartError(f"{name} must be at least 1, not {getattr(self, name)}", param=name)
        for name in ("max_queue_ms", "bulk_slice_ms", "weight"):
            if not getattr(self, name) > 0:
                raise StartError(f"{name} must be above 0, not {getattr(self, name)}", param=name)
        if not 0 <= self.batch_wait_ms < math.inf:
            raise StartError(
                f"batch_wait_ms must be finite and not negative, not {self.batch_wait_ms}",
                param="batch_wait_ms",
            )
