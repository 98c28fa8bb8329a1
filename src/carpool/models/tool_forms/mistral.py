"""The two forms of Mistral's models. The older is a JSON list, the newer has a mark for each call.

[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}]
[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}
"""

import hashlib
import re
import secrets
from typing import Any

from carpool.models.tool_forms.form import Messages, ToolForm

_ID_SIZE = 9
_ID = re.compile(f"[a-zA-Z0-9]{{{_ID_SIZE}}}")


def with_short_ids(messages: Messages) -> Messages:
    """Ids of another kind than nine letters and digits, which templates refuse, become parts of digests."""
    return [
        {
            **message,
            **({"tool_call_id": _short(message.get("tool_call_id"))} if message["role"] == "tool" else {}),
            **({"tool_calls": [{**call, "id": _short(call.get("id"))} for call in calls]} if calls else {}),
        }
        for message in messages
        for calls in [message.get("tool_calls")]
    ]


def _short(id_: Any) -> str:
    text = str(id_)
    return text if _ID.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:_ID_SIZE]


def _new_id() -> str:
    return secrets.token_hex(_ID_SIZE)[:_ID_SIZE]


MISTRAL = ToolForm(
    name="mistral",
    opening="[TOOL_CALLS]",
    first=('[{"name": "', ' [{"name": "'),
    next=(', {"name": "',),
    before_arguments='", "arguments": ',
    after_arguments="}",
    closing="]",
    marks=("[TOOL_CALLS]",),
    taught_by=("tools", "[TOOL_CALLS]"),
    new_id=_new_id,
    told=with_short_ids,
)

MISTRAL_ARGS = ToolForm(
    name="mistral-args",
    opening="[TOOL_CALLS]",
    first=("",),
    next=("[TOOL_CALLS]",),
    before_arguments="[ARGS]",
    after_arguments="",
    marks=("[TOOL_CALLS]", "[ARGS]"),
    taught_by=("tools", "[TOOL_CALLS]", "[ARGS]"),
    new_id=_new_id,
    told=with_short_ids,
)
