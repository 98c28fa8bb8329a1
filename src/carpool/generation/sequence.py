"""One choice of one request on its way through the engine, and what it hands out."""

from array import array
from dataclasses import replace
from enum import Enum, StrEnum, auto

import msgspec

from carpool.errors import CarpoolError
from carpool.inference_engine import InferenceTask
from carpool.runtimes.decoder import Sample, TokenLogprobs
from carpool.runtimes.token_history import TokenHistory

from .grammar import Matcher
from .request import GenerationRequest


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """An end or stop token was drawn."""
    LENGTH = "length"
    """`max_tokens`, or what fits the context, is reached."""
    CANCELLED = "cancelled"
    ERROR = "error"
    """`SequenceOutput.error` says which."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one sequence. `completion_tokens` are those delivered, so without the stop token."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose KV memory was found instead of computed."""
    completion_tokens: int


class SequenceOutput(msgspec.Struct, frozen=True):
    """What one step gave one sequence. Each has exactly one output with a finish reason, its last."""

    request_id: int
    index: int
    """Which of the request's `n` choices."""
    token_ids: list[int]
    usage: Usage
    """Up to here."""
    logprobs: list[TokenLogprobs] | None = None
    """One per token, where the request asked for them."""
    finish_reason: FinishReason | None = None
    error: CarpoolError | None = None
    """Set with `FinishReason.ERROR`. All unfinished sequences of a request get it in the same call."""


class Status(Enum):
    """Where a sequence is."""

    WAITING = auto()
    """In the queue; it owns no KV memory."""
    RUNNING = auto()
    FINISHED = auto()


class Sequence:
    """The state of one choice. Tokens are `prompt_ids` and, after them, `output_ids`.

    The scheduler owns `status`, the token lists and the counts; the block manager owns the fields under "KV
    memory". `num_computed_tokens` tokens from the first are in KV memory; a decoding sequence has one token
    more than that, one that was just admitted or preempted has many.
    """

    __slots__ = (
        "_banned_early",
        "_banned_ids",
        "_history",
        "_sample",
        "block_table",
        "index",
        "matcher",
        "max_tokens",
        "num_cached_tokens",
        "num_computed_tokens",
        "num_preemptions",
        "num_reserved_blocks",
        "output_ids",
        "params",
        "prefix_ids",
        "prefix_root",
        "prompt_ids",
        "request",
        "status",
        "stop_ids",
        "task",
        "token_ids",
    )

    def __init__(self, request: GenerationRequest, index: int, max_tokens: int, prefix_root: int = 0) -> None:
        self.request = request
        self.index = index
        self.max_tokens = max_tokens
        self.prompt_ids = request.prompt_ids
        self.stop_ids = request.stop_ids
        self.params = replace(request.params, seed=request.params.seed + index) if index else request.params
        self.matcher = None if request.grammar is None else Matcher(request.grammar)
        """Its place in the grammar, kept while it waits."""
        self.status = Status.WAITING
        self.task: InferenceTask | None = None
        """Its place in the waiting queue, kept while it runs."""
        self.token_ids: list[int] = list(request.prompt_ids)
        self.output_ids: list[int] = []
        self.num_computed_tokens = 0
        self.num_cached_tokens = 0
        self.num_preemptions = 0

        # KV memory
        self.block_table = array("i")
        """Blocks of its tokens in order, taken as they are needed."""
        self.num_reserved_blocks = 0
        """Blocks promised beyond the table."""
        self.prefix_root = prefix_root
        """Sequences with the same root may share blocks."""
        self.prefix_ids: list[int] = []
        """Names in the prefix cache of its computed full blocks."""

        self._banned_early = tuple(self.stop_ids)
        """Until there are `min_tokens`."""
        self._banned_ids = tuple(request.unwanted_ids)
        self._history = TokenHistory(self.prompt_ids, self.output_ids)
        self._sample: Sample | None = None

    @property
    def num_tokens(self) -> int:
        """Prompt and output."""
        return len(self.token_ids)

    @property
    def num_shared_tokens(self) -> int:
        """How many of its first tokens may be computed in pieces and shared in the prefix cache.

        Quantised KV memory holds other numbers after tokens came one by one than after they came together.
        So a reproducible sequence computes its output one by one again if it has to, and shares its prompt
        only.
        """
        return len(self.prompt_ids if self.params.reproducible else self.token_ids)

    @property
    def num_prefill_tokens(self) -> int:
        """Tokens to compute in pieces now; 0 for a sequence that takes part with one token at a time."""
        missing = self.num_shared_tokens - self.num_computed_tokens
        return missing if missing > 1 else 0

    def sample(self, row: int, *, num_in_flight: int = 0) -> Sample:
        """How its next token is drawn from this row; the same object for as long as nothing changes.

        `num_in_flight`: tokens before that one which are still being drawn.
        """
        early = len(self.output_ids) + num_in_flight < self.request.min_tokens
        banned = self._banned_early if early else self._banned_ids
        if self._sample is None or self._sample.row != row or self._sample.banned_ids is not banned:
            allowed = None if self.matcher is None else self.matcher.mask
            self._sample = Sample(
                row, self.params, self.prompt_ids, self.output_ids, banned, allowed, self._history
            )
        return self._sample

    def append(self, token_id: int) -> FinishReason | None:
        """Take a drawn token; says whether the sequence ends with it. A stop token is not kept."""
        if token_id in self.stop_ids:
            return FinishReason.STOP
        self.token_ids.append(token_id)
        self.output_ids.append(token_id)
        if self.matcher is not None and self.matcher.finished:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.output_ids) == self.max_tokens else None

    def output(
        self,
        token_ids: list[int],
        logprobs: list[TokenLogprobs] | None = None,
        finish_reason: FinishReason | None = None,
        error: CarpoolError | None = None,
    ) -> SequenceOutput:
        """These tokens as an output."""
        usage = Usage(len(self.prompt_ids), self.num_cached_tokens, len(self.output_ids))
        return SequenceOutput(
            self.request.request_id, self.index, token_ids, usage, logprobs, finish_reason, error
        )
