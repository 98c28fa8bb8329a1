"""Stop strings in streamed text."""

from collections.abc import Sequence


class StopChecker:
    """Finds the stop string that is complete first, wherever the text is cut into pieces.

    Text that may still become a stop string is held back, and no more than that. Each stop string is followed
    by its own Knuth-Morris-Pratt automaton (Fast Pattern Matching in Strings, 1977), so the time is linear.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """`stop` holds non-empty strings; none means that everything passes."""
        self._patterns = [(pattern, _failure(pattern)) for pattern in stop]
        self._lengths = [0] * len(self._patterns)
        """How much of each pattern the end of the text matches."""
        self._first_characters = {pattern[0] for pattern in stop}
        self._held = ""
        self._matched: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """Take further text; returns what may be shown now, and the stop string if one is complete.

        The stop string and what follows it are never shown, so after a match everything is dropped.
        """
        if self._matched is not None:
            return "", self._matched
        # The usual case, and fast.
        if not any(self._lengths) and self._first_characters.isdisjoint(text):
            return text, None
        text = self._held + text
        for position in range(len(self._held), len(text)):
            self._matched = self._advance(text[position])
            if self._matched is not None:
                self._held = ""
                return text[: max(0, position + 1 - len(self._matched))], self._matched
        shown = max(0, len(text) - max(self._lengths))
        self._held = text[shown:]
        return text[:shown], None

    def skip(self, text: str) -> str:
        """Take text that is shown whatever is in it; a stop string that ends behind it may begin in it."""
        for character in text:
            self._advance(character)
        return text

    def flush(self) -> str:
        """The text held back, when the answer is over without a match."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str | None:
        """Follow one character; returns the longest pattern it completes."""
        complete: list[str] = []
        for index, (pattern, failure) in enumerate(self._patterns):
            length = self._lengths[index]
            while length == len(pattern) or (length and pattern[length] != character):
                length = failure[length - 1]
            if pattern[length] == character:
                length += 1
            self._lengths[index] = length
            if length == len(pattern):
                complete.append(pattern)
        return max(complete, key=len, default=None)


def _failure(pattern: str) -> list[int]:
    """For each prefix of the pattern, the length of its longest proper prefix that is also its suffix."""
    failure = [0] * len(pattern)
    length = 0
    for position in range(1, len(pattern)):
        while length and pattern[position] != pattern[length]:
            length = failure[length - 1]
        if pattern[position] == pattern[length]:
            length += 1
        failure[position] = length
    return failure
