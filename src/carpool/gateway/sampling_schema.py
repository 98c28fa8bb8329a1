"""The fields that chat completions and completions share, after OpenAI's and vLLM's names."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from carpool.gateway.grammar_schema import ResponseFormat, StructuredOutputs, requested_grammar
from carpool.gateway.inputs import TokenId

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
Label = Annotated[str, Meta(max_length=1024)]


class CacheOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request wants of the answer cache."""

    cache: Literal["on", "exact", "off"] | None = None
    """`on` asks for it where it is opt-in, and at any temperature; `exact` never matches by meaning."""
    no_cache: bool = False
    """Let the model answer; the answer is kept."""
    no_store: bool = False
    """Do not keep the answer."""


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a reply is streamed."""

    include_usage: bool = False
    """Send the usage in a last chunk without choices."""
    include_obfuscation: bool | None = None
    """Accepted and ignored."""


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a text is generated and sent."""

    model: ModelName
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """-1 or 0: off."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=1024)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Count], Meta(max_length=128)] | None = None
    max_tokens: Positive | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    carpool: CacheOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    # Accepted and without effect here.
    user: Label | None = None
    metadata: Any = None
    store: bool | None = None
    service_tier: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None

    def check(self) -> None:
        """Refuse what is known but not served. Raises `Unsupported`."""

    @property
    def choices(self) -> int:
        """Of the reply, those of all prompts together."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> dict[str, Any]:
        """The given fields that change what is drawn, as `protocol.Generate` names them; not the temperature.

        Values that say what is the default anyway are left out, so that equal requests look equal.
        Where the model has defaults of its own nothing is left out: there, silence means something else.
        Raises `InvalidRequest` for a form of the answer that contradicts itself.
        """
        fields: dict[str, Any] = {
            name: value
            for name in _PASSED_ON
            if (value := getattr(self, name)) is not None and value != _NEUTRAL.get(name)
        }
        if self.top_k is not None:
            fields["top_k"] = max(self.top_k, 0)  # -1 means off, too
        grammar = requested_grammar(self.response_format, self.structured_outputs)
        if grammar is not None:
            fields["grammar"] = grammar
        if self.seed is not None:
            fields["seed"] = self.seed % 2**63  # the sampler's seeds are not negative
        return fields


_PASSED_ON = (
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "stop_token_ids",
    "min_tokens",
    "ignore_eos",
)
_NEUTRAL: dict[str, object] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "stop_token_ids": [],
    "min_tokens": 0,
    "ignore_eos": False,
}
