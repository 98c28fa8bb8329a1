"""What a request says about the form of its answer, in OpenAI's words and in vLLM's."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from carpool.errors import InvalidRequest
from carpool.gateway.validation import is_deeper
from carpool.worker.protocol import Grammar

_ANY_OBJECT = '{"type":"object"}'
_MAX_DEPTH = 64
"""Of objects and lists within each other in a schema. The compiler reads 128."""
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")

Choice = Annotated[str, Meta(min_length=1, max_length=4096)]


class TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Any text."""

    def grammar(self) -> Grammar | None:
        """None."""
        return None


class JsonObjectFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True
):
    """Some JSON object."""

    def grammar(self) -> Grammar:
        """The grammar of JSON objects."""
        return Grammar("json_schema", _ANY_OBJECT, "response_format")


class JsonSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named schema. It is always kept to the letter, `strict` or not."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    description: Annotated[str, Meta(max_length=4096)] | None = None
    strict: bool | None = None


class JsonSchemaFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True
):
    """JSON of a schema."""

    json_schema: JsonSchema

    def grammar(self) -> Grammar:
        """The schema. Raises `InvalidRequest` if it is none."""
        field = "response_format.json_schema.schema"
        text = _text(self.json_schema.schema, field) if _is_given(self.json_schema.schema) else _ANY_OBJECT
        return Grammar("json_schema", text, field)


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's field: exactly one of these."""

    json: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    """A JSON schema, as an object or as its text."""
    regex: Annotated[str, Meta(min_length=1)] | None = None
    """What the whole text must match, in Rust's syntax without look-around and back-references."""
    choice: Annotated[list[Choice], Meta(min_length=1, max_length=4096)] | None = None
    grammar: Annotated[str, Meta(min_length=1)] | None = None
    """In llguidance's dialect of Lark."""
    json_object: bool | None = None
    """Some JSON object."""

    def to_grammar(self) -> Grammar:
        """The one that is given. Raises `InvalidRequest` for none or several."""
        given: list[Grammar] = []
        if _is_given(self.json):
            field = "structured_outputs.json"
            given.append(Grammar("json_schema", _text(self.json, field), field))
        if self.regex is not None:
            given.append(Grammar("regex", self.regex, "structured_outputs.regex"))
        if self.choice is not None:
            alternatives = "|".join(_META.sub(r"\\\g<0>", choice) for choice in self.choice)
            given.append(Grammar("regex", alternatives, "structured_outputs.choice"))
        if self.grammar is not None:
            given.append(Grammar("lark", self.grammar, "structured_outputs.grammar"))
        if self.json_object:
            given.append(Grammar("json_schema", _ANY_OBJECT, "structured_outputs.json_object"))
        if len(given) != 1:
            raise InvalidRequest(
                "`structured_outputs` needs exactly one of `json`, `regex`, `choice`, `grammar` and "
                "`json_object`.",
                param="structured_outputs",
            )
        return given[0]


def requested_grammar(form: ResponseFormat | None, structured: StructuredOutputs | None) -> Grammar | None:
    """The grammar that either field asks for. Raises `InvalidRequest` if both do."""
    grammar = None if form is None else form.grammar()
    if structured is None:
        return grammar
    if grammar is not None:
        raise InvalidRequest(
            "Only one of `response_format` and `structured_outputs` can be given.", param="structured_outputs"
        )
    return structured.to_grammar()


def _is_given(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in (b"", b"null")


def _text(raw: msgspec.Raw, field: str) -> str:
    """The text of a schema: as it came, because the order of its properties is that of the answer's."""
    data = bytes(raw)
    try:
        text = data.decode()
        if text.startswith('"'):
            text = msgspec.json.decode(data, type=str)
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"`{field}` is not valid JSON: {error}", param=field) from None
    except RecursionError:
        raise _too_deep(field) from None
    if not isinstance(schema, dict):
        raise InvalidRequest(f"`{field}` must be a JSON schema, which is an object.", param=field)
    if is_deeper(schema, _MAX_DEPTH):
        raise _too_deep(field)
    return text


def _too_deep(field: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` is nested more than {_MAX_DEPTH} levels deep.", param=field)
