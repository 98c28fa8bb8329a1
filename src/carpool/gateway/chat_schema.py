"""The body of a chat completions request."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from carpool.errors import InvalidRequest
from carpool.gateway.grammar_schema import TextFormat
from carpool.gateway.sampling_schema import Label, Positive, SamplingFields
from carpool.gateway.tool_parser import ToolCallParser
from carpool.gateway.tool_schema import Choice, Tool, Tools, calls_grammar, check_tools
from carpool.gateway.validation import require_default
from carpool.models.tool_forms import ToolForm


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model asked for."""

    name: Label
    arguments: str
    """A JSON object, as text."""


class CalledTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call from an earlier reply."""

    function: CalledFunction
    type: Literal["function"] = "function"
    id: Label | None = None
    index: int | None = None


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One turn. Fields that clients repeat from earlier replies are accepted."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: Label | None = None
    tool_calls: Annotated[list[CalledTool], Meta(max_length=256)] | None = None
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
        for name in ("name", "tool_call_id", "reasoning_content"):
            value = getattr(self, name)
            if value is not None:
                message[name] = value
        if self.tool_calls:
            message["tool_calls"] = msgspec.to_builtins(self.tool_calls)
        return message


class ChatRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation to be continued."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: Positive | None = None
    """Goes before `max_tokens`, its older name."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None

    tools: Tools | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    """false: at most one call in a reply."""

    # Accepted and without effect here.
    modalities: list[Literal["text"]] | None = None
    prediction: Any = None
    reasoning_effort: Label | None = None
    verbosity: Label | None = None

    # Not served, but for the values that ask for nothing.
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    web_search_options: Any = None

    def check(self) -> None:
        """Refuse what is known but not served. Raises `InvalidRequest`, `Unsupported`."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
        check_tools(self.tools, self.tool_choice)
        if self.usable_tools and self.structured_outputs is not None:
            raise InvalidRequest(
                "`structured_outputs` cannot be combined with `tools`; `response_format` can.",
                param="structured_outputs",
            )
        require_default("functions", self.functions, (None, []))
        require_default("function_call", self.function_call, (None, "none", "auto"))
        require_default("audio", self.audio)
        require_default("web_search_options", self.web_search_options)

    @property
    def usable_tools(self) -> list[Tool]:
        """The tools that the reply may call."""
        return [] if self.tool_choice == "none" or self.tools is None else self.tools

    def sampling(self) -> dict[str, Any]:
        """See `SamplingFields`."""
        fields = super().sampling()
        if self.usable_tools:
            parallel = self.parallel_tool_calls is not False
            answer = fields.get("grammar")
            fields["grammar"] = calls_grammar(self.usable_tools, self.tool_choice, parallel, answer)
        return fields

    def call_parser(self, form: ToolForm) -> ToolCallParser:
        """A parser for one reply with these tools, of a model that writes calls in this form."""
        free = self.response_format is None or isinstance(self.response_format, TextFormat)
        return ToolCallParser(form, anywhere=free)
