"""Replies that call tools, as a grammar in llguidance's dialect of Lark."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from carpool.models.tool_forms import ToolForm

MAX_CALLS = 32
"""Calls in one reply: a small model may not find the end by itself."""


def tool_grammar(
    text: str, form: ToolForm, special_ids: Mapping[str, int], json_options: Mapping[str, Any]
) -> str:
    """The grammar of a JSON object with the fields below.

    functions   list of {name, parameters}: the schemas their arguments match
    required    whether the reply must be calls; else it is free text, of which calls may be the end
    parallel    whether there may be several calls
    answer      None, or the schema of a reply without calls

    Calls are written in `form`, its marks with the special tokens there are for them; `json_options` are
    llguidance's for schemas. After the opening, free text is over: what follows is a call of one of the
    functions. So it is, where the form has calls without an opening, once the reply begins like one; but not
    beside an `answer`, which may begin so itself.
    """
    rule = json.loads(text)
    functions = rule["functions"]
    marks = re.compile(f"({'|'.join(map(re.escape, special_ids)) or '(?!)'})")

    def schema(value: Mapping[str, Any]) -> str:
        return f"%json {json.dumps({**value, 'x-guidance': json_options})}"

    def written(text: str) -> str:
        parts = [part for part in marks.split(text) if part]
        return " ".join(
            f"<[{special_ids[part]}]>" if part in special_ids else _quoted(part) for part in parts
        )

    def one_of(texts: Iterable[str]) -> str:
        return f"({' | '.join(map(written, texts))})" if any(texts) else ""

    opening = written(form.opening)
    if rule["required"]:
        lines = [f"start: ({opening}){'?' if form.bare else ''} calls"]
    elif rule["answer"] is not None:
        lines = [f"start: {opening} calls | answer", f"answer: {schema(rule['answer'])}"]
    else:
        lines = [
            "start: text | up_to_calls calls",
            r"text: /(.|\n)*/",
            rf"up_to_calls[suffix={_quoted(form.opening)}]: /(.|\n)*/",
        ]
        if form.opening in special_ids:
            lines[0] += f" | text {opening} calls"
        if form.bare:
            lines[0] += " | begins rest"
            lines.append(f"begins[lazy]: {' | '.join(map(_quoted, form.first))}")
    more = f"({one_of(form.next)} call){{0,{MAX_CALLS - 1}}}" if rule["parallel"] else ""
    named = [written(function["name"] + form.before_arguments) for function in functions]
    choices = " | ".join(f"{head} arguments_{place}" for place, head in enumerate(named))
    return "\n".join(
        [
            *lines,
            f"calls: {one_of(form.first)} rest",
            f"rest: call {more} {written(form.closing)}",
            f"call: ({choices}) {written(form.after_arguments)}",
            *(f"arguments_{place}: {schema(each['parameters'])}" for place, each in enumerate(functions)),
            "",
        ]
    )


def _quoted(text: str) -> str:
    return json.dumps(text)
