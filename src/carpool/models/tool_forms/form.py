"""What a form of tool calls is made of."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Messages = Sequence[Mapping[str, Any]]


def _as_they_are(messages: Messages) -> Messages:
    return messages


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolForm:
    """How a family of models writes calls: the texts around each function's name and its JSON object.

        text OPENING first NAME before_arguments {...} after_arguments
                      next NAME before_arguments {...} after_arguments  closing

    What it is read by (`gateway.tool_parser`) and what it is kept to (`generation.tool_grammar`) know no
    other difference between the families.
    """

    name: str
    opening: str
    """Where calls begin."""
    bare: bool = False
    """Whether a reply that begins with a call needs no opening."""
    first: tuple[str, ...]
    """Before the first name: one of these."""
    next: tuple[str, ...]
    """Before each further name: one of these."""
    before_arguments: str
    after_arguments: str
    closing: str = ""
    """After the last call."""
    marks: tuple[str, ...]
    """The parts of these texts that are special tokens in tokenizers that have them."""
    taught_by: tuple[str, ...]
    """Texts that are all found in the templates which teach it."""
    new_id: Callable[[], str] = _new_id
    """Makes the id of a call."""
    told: Callable[[Messages], Messages] = _as_they_are
    """Messages with calls and results, in the shape that the templates ask for."""
