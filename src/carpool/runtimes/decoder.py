"""The seam between the generation engine and whatever runs a decoder's forward pass.

The engine builds a `StepBatch`, `launch`es it and later asks the handle for a `StepResult`. Sampling happens
behind the seam, next to the logits, so logits never cross it. A step may be launched before the engine has
taken the tokens of the one before: an input token is then named by its place in that one (`in_flight`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.mask import Mask
from carpool.runtimes.token_history import TokenHistory


def in_flight(sample: int) -> int:
    """The input token "whatever sample number `sample` of the step before is", encoded below zero."""
    return -1 - sample


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """What the engine must know of a loaded decoder."""

    vocab_size: int
    context_length: int
    """Tokens a sequence may have, prompt and output together."""
    block_size: int
    """Tokens per block of KV memory."""
    num_blocks: int
    """Blocks of KV memory the device has room for."""


@dataclass(frozen=True, slots=True)
class StepSize:
    """How large a step is."""

    tokens: int
    samples: int


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is drawn. The defaults leave the model's distribution as it is."""

    temperature: float = 1.0
    """0 means greedy."""
    top_k: int = 0
    """0 means off."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    """Names the random stream: equal seeds give equal draws, whatever else is in the batch."""
    reproducible: bool = False
    """The seed was asked for: the runtime must round this row alike whatever else is in the batch, where it
    can. Other rows may be rounded as is fastest."""
    top_logprobs: int | None = None
    """None: no logprobs. 0: the chosen token's only. k: the k likeliest tokens' too."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One token to draw in a step."""

    row: int
    """The batch row whose last token's logits are drawn from."""
    params: SamplingParams
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    """Tokens drawn so far. With the prompt they feed the penalties; their number picks the random draw.

    It grows: the token that the step before draws is there when `result` is asked, unless it ended the
    sequence. Then nobody looks at what is drawn here."""
    banned_ids: Sequence[int] = ()
    """Tokens that must not be drawn now (the end tokens, while `min_tokens` is not reached)."""
    allowed: Callable[[], Mask | None] | None = None
    """A grammar's mask; None allows all. It follows from the token before, and is asked for when this one is
    drawn: the engine computes it while the device works."""
    history: TokenHistory | None = None
    """Of these tokens, kept from step to step; None: counted anew where a penalty needs it."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One forward pass over the new tokens of several sequences, decode steps and prompt chunks mixed.

    Shapes, with R rows and T tokens: the tokens of row r are
    `token_ids[subsequence_begins[r]:subsequence_begins[r + 1]]` at positions `past_lens[r]` and up; its KV
    blocks are `block_indices[block_indices_begins[r]:block_indices_begins[r + 1]]`, enough for its past and
    its new tokens. A block belongs to one row, or is shared, full and only read.
    """

    token_ids: NDArray[np.int64]
    """[T]; negative entries are `in_flight` tokens."""
    past_lens: NDArray[np.int32]
    """[R] tokens already in KV memory."""
    subsequence_begins: NDArray[np.int32]
    """[R + 1]"""
    block_indices: NDArray[np.int32]
    block_indices_begins: NDArray[np.int32]
    """[R + 1]"""
    samples: Sequence[Sample]
    """In row order; rows in the middle of their prompt have none."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of probabilities before temperature, penalties and truncation."""

    logprob: float
    top: Sequence[tuple[int, float]]
    """(token id, logprob), likeliest first."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step drew, in the order of `StepBatch.samples`."""

    token_ids: Sequence[int]
    logprobs: Sequence[TokenLogprobs | None]
    unusable: Sequence[int] = ()
    """Samples whose logits are not finite where it matters, so that nothing could be drawn: their token means
    nothing."""


class StepHandle(Protocol):
    """A step that was launched."""

    def result(self) -> StepResult:
        """Wait for the step. Raises what the forward pass raised; its KV blocks are then undefined.

        Asked for in the order of the launches, when the tokens of the step before are in `Sample.output_ids`.
        """
        ...


class DecoderRuntime(Protocol):
    """A loaded decoder. At most two steps are in flight; all calls come from one thread at a time."""

    @property
    def spec(self) -> DecoderSpec:
        """Sizes, constant over the runtime's life."""
        ...

    def launch(self, batch: StepBatch) -> StepHandle:
        """Start a step, behind the one in flight if there is one.

        It neither computes nor waits if there is none: the engine then calls it on an event loop.
        """
        ...

    def close(self) -> None:
        """Free the device memory. No step may be in flight."""
        ...
