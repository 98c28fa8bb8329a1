"""Tools for models whose own chat template does not teach them: told in the form of `tool_forms.hermes`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from carpool.models.tool_forms import HERMES

_INSTRUCTION = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""  # noqa: E501  # to the letter as the Qwen models were trained on it


def in_words(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """The conversation for templates that know nothing of tools: all is told in texts of the usual roles.

    `messages` have texts as content, and objects as arguments of calls. The tools join the system message,
    calls the assistant's text, and results become the user's.
    """
    told: list[dict[str, Any]] = []
    previous = None
    for message in messages:
        if message["role"] == "tool":
            result = f"<tool_response>\n{message['content']}\n</tool_response>"
            if previous == "tool":
                told[-1]["content"] += f"\n{result}"
            else:
                told.append({"role": "user", "content": result})
        elif calls := message.get("tool_calls"):
            texts = [message["content"], *(_written(call["function"]) for call in calls)]
            plain = {key: value for key, value in message.items() if key != "tool_calls"}
            told.append({**plain, "content": "\n".join(text for text in texts if text)})
        else:
            told.append({**message})
        previous = message["role"]
    if tools:
        lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        instruction = _INSTRUCTION.format(tools=lines)
        if told and told[0]["role"] in ("system", "developer"):
            told[0]["content"] += f"\n\n{instruction}"
        else:
            told.insert(0, {"role": "system", "content": instruction})
    return told


def _written(function: Mapping[str, Any]) -> str:
    arguments = json.dumps(function.get("arguments", {}), ensure_ascii=False)
    return "".join(
        [
            HERMES.opening,
            HERMES.first[0],
            function.get("name", ""),
            HERMES.before_arguments,
            arguments,
            HERMES.after_arguments,
        ]
    )
