"""Replies that call tools, as a grammar in llguidance's dialect of Lark (form: `models.tool_calls`)."""

import json
from collections.abc import Mapping
from typing import Any

from carpool.models.tool_calls import (
    AFTER_ARGUMENTS,
    BEFORE_ARGUMENTS,
    BEFORE_NAME,
    BETWEEN_CALLS,
    CLOSE,
    OPEN,
)

MAX_CALLS = 32
"""Calls in one reply: a small model may not find the end by itself."""


def tool_grammar(text: str, json_options: Mapping[str, Any]) -> str:
    """The grammar of a JSON object with these fields; `json_options` are llguidance's for schemas.

    functions   list of {name, parameters}: the schemas their arguments match
    required    whether the reply must be calls; else it is free text, of which calls may be the end
    parallel    whether there may be several calls
    answer      None, or the schema of a reply without calls

    After the opening of a call, free text is over: what follows is a call of one of the functions.
    """
    rule = json.loads(text)

    def schema(value: Mapping[str, Any]) -> str:
        return f"%json {json.dumps({**value, 'x-guidance': json_options})}"

    more = f"({_quoted(BETWEEN_CALLS)} {_quoted(OPEN)} call){{0,{MAX_CALLS - 1}}}" if rule["parallel"] else ""
    calls = f"{_quoted(OPEN)} call {more}"
    lines = []
    if rule["required"]:
        lines.append(f"start: {calls}")
    elif rule["answer"] is not None:
        lines += [f"start: {calls} | answer", f"answer: {schema(rule['answer'])}"]
    else:
        lines += [
            f"start: text | up_to_call call {more}",
            r"text: /(.|\n)*/",
            rf"up_to_call[suffix={_quoted(OPEN)}]: /(.|\n)*/",
        ]
    functions = rule["functions"]
    names = [_quoted(f"{function['name']}{BEFORE_ARGUMENTS}") for function in functions]
    choices = " | ".join(f"{name} arguments_{place}" for place, name in enumerate(names))
    lines += [
        f"call: {_quoted(BEFORE_NAME)} ({choices}) {_quoted(AFTER_ARGUMENTS + CLOSE)}",
        *(f"arguments_{place}: {schema(each['parameters'])}" for place, each in enumerate(functions)),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)
