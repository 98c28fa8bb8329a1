"""Takes replies apart into text and tool calls, as they come (form: `models.tool_calls`)."""

from dataclasses import dataclass
from enum import Enum

from carpool.models.tool_calls import AFTER_ARGUMENTS, BEFORE_ARGUMENTS, BEFORE_NAME, CLOSE, OPEN

_LONGEST_HEAD = len(BEFORE_NAME) + 64 + len(BEFORE_ARGUMENTS)
"""Characters between the opening of a call and its arguments."""


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of a call. The first one has the name, and no arguments yet."""

    place: int
    """Which of the reply's calls."""
    name: str | None
    arguments: str


class _State(Enum):
    TEXT = "text"
    """A call may begin."""
    HEAD = "head"
    ARGUMENTS = "arguments"
    TAIL = "tail"
    PLAIN = "plain"
    """No call can begin any more."""


class ToolCallParser:
    """Reads one reply. Text that may turn out to open a call is held back, and so is space before it.

    What opens a call and goes on otherwise is text. Space around calls belongs to nobody.
    """

    def __init__(self, *, anywhere: bool) -> None:
        """`anywhere`: calls may follow text; else only a reply that begins with a call has any."""
        self._anywhere = anywhere
        self._state = _State.TEXT
        self._held = ""
        self._space = ""  # before the call that has opened
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
        while self._held and state is not self._state:
            state = self._state
            if state is _State.TEXT:
                content.append(self._text())
            elif state is _State.HEAD:
                self._head(parts)
            elif state is _State.ARGUMENTS:
                parts.append(CallPart(self._place, None, self._arguments()))
            elif state is _State.TAIL:
                self._tail()
            else:
                content.append(self._take(len(self._held)))
        return "".join(content), parts

    def flush(self) -> str:
        """The text that was held back when the reply ended. A call that was cut off in its head is none."""
        held, self._held = self._held, ""
        is_text = self._state is _State.TEXT and not (self._complete and not held.strip())
        return held if is_text else ""

    def ending(self, finish_reason: str) -> str:
        """The reason a reply ended for, given the model's own."""
        whole = self._complete and self._complete == self._place + 1
        return "tool_calls" if whole and finish_reason == "stop" else finish_reason

    def _take(self, size: int) -> str:
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _text(self) -> str:
        held = self._held
        if not self._anywhere and not (held.startswith(OPEN) or OPEN.startswith(held)) and not self._complete:
            self._state = _State.PLAIN
            return ""
        at = held.find(OPEN)
        if at >= 0:
            self._state = _State.HEAD
            before = self._take(at + len(OPEN))[:at]
            text = before.rstrip()
            self._space = before[len(text) :]
            return text
        # The longest end that may become the opening of a call, and the space before it.
        certain = next(
            at for at in range(max(0, len(held) - len(OPEN) + 1), len(held) + 1) if OPEN.startswith(held[at:])
        )
        return self._take(len(held[:certain].rstrip()))

    def _head(self, parts: list[CallPart]) -> None:
        held = self._held
        at = held.find(BEFORE_ARGUMENTS)
        if not (held.startswith(BEFORE_NAME) or BEFORE_NAME.startswith(held)) or (
            at < 0 and len(held) > _LONGEST_HEAD
        ):
            self._held = self._space + OPEN + held
            self._state = _State.PLAIN
        elif at >= 0:
            name = self._take(at + len(BEFORE_ARGUMENTS))[len(BEFORE_NAME) : at]
            self._place += 1
            self._depth, self._in_string, self._escaped = 0, False, False
            self._state = _State.ARGUMENTS
            parts.append(CallPart(self._place, name, ""))

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
        tail = AFTER_ARGUMENTS + CLOSE
        if self._held.startswith(tail):
            self._take(len(tail))
            self._complete += 1
            self._state = _State.TEXT
