"""Conversations as the text a model was trained to continue."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from carpool.errors import InvalidRequest, ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.directory import read_json_object
from carpool.models.gguf import GgufCheckpoint
from carpool.models.tokenizer import Tokenizer
from carpool.models.tool_forms import HERMES, taught_form
from carpool.models.tool_forms.form import Messages
from carpool.models.tools_in_words import in_words


def read_chat_template(checkpoint: Checkpoint) -> str | None:
    """The source of a checkpoint's chat template, None where it has none.

    It is in a GGUF file's metadata, in chat_template.jinja, or in tokenizer_config.json (of several the one
    named `default`).
    """
    if isinstance(checkpoint, GgufCheckpoint):
        source = checkpoint.metadata.get("tokenizer.chat_template")
    else:
        source = _template_of_directory(checkpoint.path)
    if source is not None and not isinstance(source, str):
        raise ModelFailed(f"{checkpoint.path}: the chat template is not a string")
    return source


class ChatTemplate:
    """Renders messages as Hugging Face's `apply_chat_template` does, in a sandbox.

    Special tokens written out in messages or tools are guarded (`Tokenizer.guard`), so that a client cannot
    forge turns: `Tokenizer.encode` makes ordinary text of them. All other texts encode as if unguarded.

    Without a template the stated plain form is used: `User: ...`, `Assistant: ...` and `System: ...`,
    a blank line between them, and `Assistant:` at the end.

    A template that teaches none of the `tool_forms` gets tools, calls and their results as texts.

    A template is the operator's, and rendering takes time in proportion to the messages, whose number and
    size are bounded where they are received. Templates from clients must not come here.
    """

    def __init__(self, source: str | None, tokenizer: Tokenizer) -> None:
        """`source` as from `read_chat_template`. Raises `ModelFailed` where it is not valid Jinja."""
        self._guard = tokenizer.guard
        self._tokens = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
        try:
            self._template = None if source is None else _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelFailed(f"the model's chat template is not valid: {error}") from error
        taught = None if source is None else taught_form(source)
        self.tool_form = taught or HERMES
        """How the model writes tool calls."""
        self._teaches_tool_calls = taught is not None

    @property
    def is_fallback(self) -> bool:
        """Whether the model has no template of its own. Its prompts then want `add_special_tokens=True`."""
        return self._template is None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt for messages and tools in OpenAI's shape; `kwargs` are further template variables.

        Raises `InvalidRequest` for content other than text, and with the template's own words where it
        refuses the messages.
        """
        try:
            prepared: Messages = [_prepare(message, index) for index, message in enumerate(messages)]
            if self._teaches_tool_calls:
                prepared = self.tool_form.told(prepared)
            else:
                prepared, tools = in_words(prepared, tools), None
            prepared = [self._guarded(message) for message in prepared]
            guarded_tools = self._guarded(tools) if tools else None
        except RecursionError as error:
            raise InvalidRequest("messages or tools are nested too deeply") from error
        if self._template is None:
            return _plain_form(prepared, add_generation_prompt)
        variables = {
            **self._tokens,
            **kwargs,
            "messages": prepared,
            "tools": guarded_tools,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(variables)
        except (jinja2.TemplateError, *_RENDER_ERRORS) as error:
            reason = f"the model's chat template refuses the messages: {error}"
            raise InvalidRequest(reason, param="messages") from error

    def _guarded(self, value: Any) -> Any:
        """A copy with every string in it guarded."""
        match value:
            case str():
                return self._guard(value)
            case Mapping():
                return {self._guarded(key): self._guarded(item) for key, item in value.items()}
            case list() | tuple():
                return [self._guarded(item) for item in value]
            case _:
                return value


_RENDER_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What expressions of a template raise when a message lacks what they expect."""


def _prepare(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A message as templates expect it: content a string, arguments of tool calls an object."""
    where = f"messages[{index}]"
    if not isinstance(message.get("role"), str):
        raise InvalidRequest("a message needs a role", param=f"{where}.role")
    prepared = {**message, "content": _flatten(message.get("content"), f"{where}.content")}
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list):
            raise InvalidRequest("tool_calls must be a list", param=f"{where}.tool_calls")
        prepared["tool_calls"] = [
            _with_parsed_arguments(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls)
        ]
    return prepared


def _flatten(content: Any, where: str) -> str:
    """Text parts are joined by newlines, as vLLM does; no content is an empty text."""
    match content:
        case str():
            return content
        case None:
            return ""
        case list():
            return "\n".join(_text_of(part, where) for part in content)
        case _:
            raise InvalidRequest("content must be a string or a list of text parts", param=where)


def _text_of(part: Any, where: str) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": str(part_type)}:
            raise InvalidRequest(f"content parts of type {part_type!r} are not supported here", param=where)
        case _:
            raise InvalidRequest("a content part needs the type 'text' and a text", param=where)


def _with_parsed_arguments(call: Any, where: str) -> dict[str, Any]:
    """OpenAI sends a call's arguments as JSON text, templates want the object."""
    match call:
        case {"function": {"arguments": str(arguments)} as function}:
            try:
                parsed = json.loads(arguments or "{}")
            except (ValueError, RecursionError) as error:
                raise InvalidRequest("arguments are not JSON", param=f"{where}.function.arguments") from error
            return {**call, "function": {**function, "arguments": parsed}}
        case {"function": {}}:
            return {**call}
        case _:
            raise InvalidRequest("a tool call needs a function", param=where)


def _plain_form(messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, "Assistant:"] if add_generation_prompt else turns)


def _template_of_directory(directory: Path) -> Any:
    file = directory / "chat_template.jinja"
    if file.exists():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFailed(f"{file} cannot be read: {error}") from error
    settings = directory / "tokenizer_config.json"
    template = read_json_object(settings).get("chat_template") if settings.exists() else None
    if isinstance(template, list):
        by_name = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        return by_name.get("default")
    return template


def _environment() -> jinja2.Environment:
    """The environment that templates on the hub are written for; see transformers' chat_template_utils.py."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks an assistant's words for training; here it only renders them."""

    tags = {"generation"}  # noqa: RUF012  # the declaration is jinja2's

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **kwargs: Any) -> str:
    """Jinja2's own filter escapes HTML, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **kwargs)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(time_format: str) -> str:
    return datetime.now().strftime(time_format)
