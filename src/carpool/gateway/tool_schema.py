"""Tools in a chat request, after OpenAI's names, and what a reply may be where there are some."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from carpool.errors import InvalidRequest
from carpool.gateway.validation import is_deeper
from carpool.worker.protocol import Grammar

_MAX_BYTES = 128 * 1024
"""Of all tools of a request, as JSON."""
_MAX_DEPTH = 32
"""Of objects and lists within each other in a function's parameters."""
_ANY_ARGUMENTS = {"type": "object"}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}

FunctionName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]


class FunctionDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function that the model may ask to be called."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """The JSON schema of its arguments, which are an object; None: it takes none."""
    strict: bool | None = None
    """Keep to the schema also where calling is left to the model; otherwise its arguments are any object."""

    def arguments(self) -> dict[str, Any]:
        """The schema of its arguments. They are declared, so others are only allowed where it says so."""
        if not self.parameters:
            return _NO_ARGUMENTS
        schema = {"type": "object", **self.parameters}
        if schema.keys() <= _PLAIN_KEYS:
            schema["additionalProperties"] = False
        return schema


_PLAIN_KEYS = {"type", "properties", "required", "title", "description", "$defs", "definitions", "$schema"}
"""Of a schema whose `properties` are all that it says of properties."""


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool; all tools are functions."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The function that must be called."""

    name: str


class ToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionChoice


Tools = Annotated[list[Tool], Meta(max_length=128)]
Choice = Literal["none", "auto", "required"] | ToolChoice


def check_tools(tools: Sequence[Tool] | None, choice: Choice | None) -> None:
    """Raise `InvalidRequest` for tools that contradict each other or are too much, naming the field."""
    names: set[str] = set()
    for place, tool in enumerate(tools or ()):
        function, where = tool.function, f"tools[{place}].function"
        if function.name in names:
            raise InvalidRequest(f"There is more than one function `{function.name}`.", param=f"{where}.name")
        names.add(function.name)
        if (function.parameters or _NO_ARGUMENTS).get("type", "object") != "object":
            raise InvalidRequest(
                f"`{where}.parameters` must be a JSON schema of type object.", param=f"{where}.parameters"
            )
        if is_deeper(function.parameters, _MAX_DEPTH):
            raise InvalidRequest(
                f"`{where}.parameters` is nested more than {_MAX_DEPTH} levels deep.",
                param=f"{where}.parameters",
            )
    if tools and (size := len(msgspec.json.encode(tools))) > _MAX_BYTES:
        raise InvalidRequest(
            f"`tools` takes {size} bytes of JSON; at most {_MAX_BYTES} are served.", param="tools"
        )
    if isinstance(choice, ToolChoice) and choice.function.name not in names:
        raise InvalidRequest(
            f"`tool_choice` names the function `{choice.function.name}`, which is not in `tools`.",
            param="tool_choice",
        )
    if choice == "required" and not tools:
        raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")


def calls_grammar(
    tools: Sequence[Tool], choice: Choice | None, parallel: bool, answer: Grammar | None
) -> Grammar:
    """What a reply with these tools looks like. `answer`: the schema of a reply that calls none, if any."""
    functions = [tool.function for tool in tools]
    required, named = choice == "required", isinstance(choice, ToolChoice)
    if isinstance(choice, ToolChoice):
        functions = [function for function in functions if function.name == choice.function.name]
    rule = {
        "functions": [
            {
                "name": function.name,
                "parameters": function.arguments()
                if required or named or function.strict
                else _ANY_ARGUMENTS,
            }
            for function in functions
        ],
        "required": required or named,
        "parallel": parallel and not named,
        "answer": None if answer is None else json.loads(answer.text),
    }
    return Grammar("tool_calls", json.dumps(rule), "tools")
