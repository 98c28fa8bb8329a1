"""The form of Llama 3.1, 3.2 and 3.3: the whole reply is a call, in JSON.

{"name": "get_weather", "parameters": {"city": "Paris"}}

It may follow <|python_tag|>, and text before that. The models were trained on one call in a turn; several are
separated as vLLM reads them.
"""

from itertools import takewhile
from typing import Any

from carpool.models.tool_forms.form import Messages, ToolForm


def one_call_in_a_turn(messages: Messages) -> Messages:
    """Several calls of a turn as turns of their own, each with its result: templates refuse them together."""
    told: list[dict[str, Any]] = []
    place = 0
    while place < len(messages):
        message = messages[place]
        place += 1
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            told.append({**message})
            continue
        results = [{**each} for each in takewhile(lambda each: each["role"] == "tool", messages[place:])]
        place += len(results)
        for call in calls:
            told.append({**message, "tool_calls": [call]})
            message = {**message, "content": ""}
            its_own = (each for each in results if each.get("tool_call_id") == call.get("id"))
            if (result := next(its_own, None)) is not None:
                told.append(result)
                results.remove(result)
        told += results
    return told


LLAMA3 = ToolForm(
    name="llama3",
    opening="<|python_tag|>",
    bare=True,
    first=('{"name": "', '{"type": "function", "name": "'),
    next=('; {"name": "', '; {"type": "function", "name": "'),
    before_arguments='", "parameters": ',
    after_arguments="}",
    marks=("<|python_tag|>",),
    taught_by=("tools", "ipython", '"parameters": '),
    told=one_call_in_a_turn,
)
