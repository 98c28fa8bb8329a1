"""Takes replies apart into text and tool calls, as they come."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from carpool.models.tool_forms import ToolForm

_NAME = re.compile("[a-zA-Z0-9_-]{0,64}")


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of a call. The first one has its name and its new id, and no arguments yet."""

    place: int
    """Which of the reply's calls."""
    arguments: str
    name: str | None = None
    id: str | None = None


class _State(Enum):
    BEGINNING = "beginning"
    """What comes first tells whether there can be calls, or is a call."""
    TEXT = "text"
    """A call may begin."""
    HEAD = "head"
    """Before the arguments."""
    ARGUMENTS = "arguments"
    TAIL = "tail"
    """Behind the arguments."""
    BETWEEN = "between"
    """A call has ended."""
    PLAIN = "plain"
    """No call can begin any more."""


class ToolCallParser:
    """Reads one reply. Text that may turn out to open a call is held back, and so is space before it.

    What opens a call and goes on otherwise is text. Space around calls belongs to nobody.
    """

    def __init__(self, form: ToolForm, *, anywhere: bool) -> None:
        """`anywhere`: calls may follow text; else only a reply that begins with the opening has any."""
        self._form = form
        self._anywhere = anywhere
        self._state = _State.BEGINNING
        self._held = ""
        self._opened = ""  # the opening of the first call, with the space before it
        self._heads = form.first
        self._place = -1
        self._complete = 0
        # Within the arguments' JSON.
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def push(self, text: str) -> tuple[str, list[CallPart]]:
        """Take what comes next; returns the text and the parts of calls that are certain now."""
        self._held += text
        content: list[str] = []
        parts: list[CallPart] = []
        state = None
        while (self._held or self._state is _State.TAIL) and state is not self._state:
            state = self._state
            if state is _State.BEGINNING:
                self._beginning()
            elif state is _State.TEXT:
                content.append(self._text())
            elif state is _State.HEAD:
                self._head(parts)
            elif state is _State.ARGUMENTS:
                parts.append(CallPart(self._place, self._arguments()))
            elif state is _State.TAIL:
                self._tail()
            elif state is _State.BETWEEN:
                self._between()
            else:
                content.append(self._take(len(self._held)))
        return "".join(content), parts

    def flush(self) -> str:
        """The text that was held back when the reply ended. A call that was cut off in its head is none."""
        held, self._held = self._held, ""
        return held if self._state in (_State.BEGINNING, _State.TEXT) else ""

    def ending(self, finish_reason: str) -> str:
        """The reason a reply ended for, given the model's own."""
        whole = self._complete and self._complete == self._place + 1
        return "tool_calls" if whole and finish_reason == "stop" else finish_reason

    def _take(self, size: int) -> str:
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _beginning(self) -> None:
        if not self._anywhere:
            self._expect((self._form.opening,), _State.TEXT, _State.PLAIN)
        elif self._form.bare:
            self._expect(self._form.first, _State.HEAD, _State.TEXT)
        else:
            self._state = _State.TEXT

    def _expect(self, wanted: tuple[str, ...], found: _State, otherwise: _State) -> None:
        if self._held.startswith(wanted):
            self._state = found
        elif not _may_become(self._held, wanted):
            self._state = otherwise

    def _text(self) -> str:
        held, opening = self._held, self._form.opening
        at = held.find(opening)
        if at >= 0:
            self._state = _State.HEAD
            before = self._take(at + len(opening))
            text = before[:at].rstrip()
            self._opened = before[len(text) :]
            return text
        # The longest end that may become the opening of a call, and the space before it.
        certain = next(
            at
            for at in range(max(0, len(held) - len(opening) + 1), len(held) + 1)
            if opening.startswith(held[at:])
        )
        return self._take(len(held[:certain].rstrip()))

    def _head(self, parts: list[CallPart]) -> None:
        held, before_arguments = self._held, self._form.before_arguments
        undecided = _may_become(held, self._heads)
        for head in self._heads:
            if not held.startswith(head):
                continue
            match = _NAME.match(held, len(head))
            name = match[0] if match else ""
            after = held[len(head) + len(name) :]
            if name and after.startswith(before_arguments):
                self._take(len(head) + len(name) + len(before_arguments))
                self._place += 1
                self._depth, self._in_string, self._escaped = 0, False, False
                self._state = _State.ARGUMENTS
                parts.append(CallPart(self._place, "", name, self._form.new_id()))
                return
            undecided |= before_arguments.startswith(after) and bool(name or not after)
        if not undecided:
            self._held = self._opened + held
            self._state = _State.PLAIN

    def _arguments(self) -> str:
        """What is there of the arguments' object; behind its end the tail follows."""
        for at, char in enumerate(self._held):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "]}":
                self._depth -= 1
                if self._depth == 0:
                    self._state = _State.TAIL
                    return self._take(at + 1)
        return self._take(len(self._held))

    def _tail(self) -> None:
        tail = self._form.after_arguments
        if self._held.startswith(tail):
            self._take(len(tail))
            self._complete += 1
            self._state = _State.BETWEEN
            self._heads, self._opened = self._form.next, ""

    def _between(self) -> None:
        held, closing = self._held, self._form.closing
        if not held.strip():
            return
        if self._heads and closing and held.startswith(closing):
            self._take(len(closing))
            self._heads = ()
            self._between()
        elif held.startswith(self._heads) or _may_become(held, self._heads):
            self._state = _State.HEAD
        else:
            self._state = _State.PLAIN


def _may_become(text: str, wholes: Sequence[str]) -> bool:
    """Whether a text is the beginning of one of these and there may be more to come."""
    return any(whole.startswith(text) for whole in wholes)
