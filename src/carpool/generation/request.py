"""What a caller asks the engine for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from carpool.errors import ContextLengthExceeded, InvalidRequest
from carpool.inference_engine import Priority
from carpool.runtimes.decoder import DecoderSpec, SamplingParams

from .grammar import Grammar


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One prompt and how to continue it. The caller must not change `prompt_ids` afterwards."""

    request_id: int
    """Chosen by the caller; unique among the engine's unfinished requests."""
    prompt_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    """Choice i of n draws from the random stream `seed + i`."""
    max_tokens: int | None = None
    """None: as many as fit the context and the KV memory."""
    min_tokens: int = 0
    """No end or stop token is drawn before so many others."""
    end_token_ids: frozenset[int] = frozenset()
    """The model's own end tokens."""
    ignore_eos: bool = False
    """Treat `end_token_ids` as ordinary tokens."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens the caller wants to stop at."""
    grammar: Grammar | None = None
    """What the text must match. It ends where nothing may follow, or with an end token where it may end."""
    n: int = 1
    """Choices, each a sequence of its own; they share the prompt's full KV blocks."""
    priority: Priority = Priority.INTERACTIVE
    tenant: str = "local"
    deadline: float | None = None
    """Seconds of the engine's clock (by default `time.monotonic()`)."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Every token that ends a sequence; it is not delivered."""
        if self.ignore_eos and self.grammar is None:
            return self.stop_token_ids
        return self.end_token_ids | self.stop_token_ids

    @property
    def unwanted_ids(self) -> frozenset[int]:
        """Tokens that are not drawn as long as there is another choice."""
        return self.end_token_ids if self.ignore_eos and self.grammar is not None else frozenset()


def check(request: GenerationRequest, spec: DecoderSpec, max_n: int) -> int:
    """Refuse what the decoder could never run; returns how many tokens each choice may generate.

    Raises `ContextLengthExceeded` naming the tokens asked for and the context's, `InvalidRequest` for
    anything else. What passes here cannot make a step fail by its values, nor wait for ever.
    """
    _check_values(request, spec, max_n)
    prompt, context = len(request.prompt_ids), spec.context_length
    wanted = 1 if request.max_tokens is None else request.max_tokens
    if prompt + wanted > context:
        asked = (
            ""
            if request.max_tokens is None
            else f" and {wanted} for the completion, {prompt + wanted} in all"
        )
        raise ContextLengthExceeded(
            f"This model's context length is {context} tokens; the request has {prompt} in the prompt{asked}",
            param="prompt" if prompt >= context else "max_tokens",
        )
    # The last token drawn is never fed back, so it needs no KV memory.
    room = spec.num_blocks * spec.block_size + 1
    if prompt + wanted > room:
        raise InvalidRequest(
            f"The request needs KV memory for {prompt + wanted - 1} tokens; there is room for {room - 1}",
            param="max_tokens" if prompt < room else "prompt",
        )
    max_tokens = min(context, room) - prompt if request.max_tokens is None else request.max_tokens
    if request.min_tokens > max_tokens:
        raise InvalidRequest(
            f"min_tokens {request.min_tokens} is above max_tokens {max_tokens}", param="min_tokens"
        )
    return max_tokens


def _check_values(request: GenerationRequest, spec: DecoderSpec, max_n: int) -> None:
    params, vocab = request.params, spec.vocab_size

    def need(valid: bool, name: str, rule: str) -> None:
        if not valid:
            raise InvalidRequest(f"{name} must be {rule}", param=name)

    def in_vocabulary(token_ids: Sequence[int] | frozenset[int]) -> bool:
        return not token_ids or (min(token_ids) >= 0 and max(token_ids) < vocab)

    need(len(request.prompt_ids) > 0, "prompt", "at least one token")
    need(in_vocabulary(request.prompt_ids), "prompt", f"token ids from 0 to {vocab - 1}")
    need(request.max_tokens is None or request.max_tokens >= 1, "max_tokens", "at least 1")
    need(request.min_tokens >= 0, "min_tokens", "at least 0")
    need(in_vocabulary(request.stop_ids), "stop_token_ids", f"token ids from 0 to {vocab - 1}")
    need(1 <= request.n <= max_n, "n", f"between 1 and {max_n}")
    need(0 <= params.temperature < math.inf, "temperature", "a finite number not below 0")
    need(params.top_k >= 0, "top_k", "at least 0")
    need(0 < params.top_p <= 1, "top_p", "above 0 and at most 1")
    need(0 <= params.min_p <= 1, "min_p", "between 0 and 1")
    need(0 < params.repetition_penalty < math.inf, "repetition_penalty", "a finite number above 0")
    need(math.isfinite(params.frequency_penalty), "frequency_penalty", "finite")
    need(math.isfinite(params.presence_penalty), "presence_penalty", "finite")
    need(in_vocabulary(frozenset(params.logit_bias)), "logit_bias", f"for token ids from 0 to {vocab - 1}")
    need(not any(map(math.isnan, params.logit_bias.values())), "logit_bias", "numbers")
    need(params.top_logprobs is None or 0 <= params.top_logprobs <= vocab, "top_logprobs", f"0 to {vocab}")
