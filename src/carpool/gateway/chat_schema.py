"""The body of a chat completions request."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from carpool.errors import InvalidRequest
from carpool.gateway.sampling_schema import Label, Positive, SamplingFields
from carpool.gateway.validation import require_default


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn. Fields that clients repeat from earlier replies are accepted."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: Label | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: Label | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None

    def __post_init__(self) -> None:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs `content`")

    def plain(self) -> dict[str, Any]:
        """The message as chat templates take it."""
        message: dict[str, Any] = {"role": self.role}
        if self.content is not None:
            message["content"] = (
                self.content if isinstance(self.content, str) else msgspec.to_builtins(self.content)
            )
        for name in ("name", "tool_calls", "tool_call_id", "reasoning_content"):
            value = getattr(self, name)
            if value is not None:
                message[name] = value
        return message


class ChatRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation to be continued."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: Positive | None = None
    """Goes before `max_tokens`, its older name."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None

    # Accepted and without effect here.
    modalities: list[Literal["text"]] | None = None
    parallel_tool_calls: bool | None = None
    prediction: Any = None
    reasoning_effort: Label | None = None
    verbosity: Label | None = None

    # Not served yet, but for the values that ask for nothing.
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    web_search_options: Any = None

    def check(self) -> None:
        """Refuse what is known but not served. Raises `InvalidRequest`, `Unsupported`."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
        require_default("tools", self.tools, (None, []))
        require_default("tool_choice", self.tool_choice, (None, "none", "auto"))
        require_default("functions", self.functions, (None, []))
        require_default("function_call", self.function_call, (None, "none", "auto"))
        require_default("audio", self.audio)
        require_default("web_search_options", self.web_search_options)
