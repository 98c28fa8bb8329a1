"""Grammars: what a text may look like, as the set of tokens that may come next. The work is llguidance's.

A `Grammar` is compiled (`grammar_compiler`) and serves any number of sequences; each follows it with a
`Matcher` of its own. Matchers are used in the engine's step thread only, one after the other: those of one
grammar wait for each other anyway, and most masks of schemas take less than to hand them to others.
"""

import re
from collections.abc import Callable

import numpy as np
from llguidance import LLMatcher

from carpool.runtimes.mask import Mask, mask_of

_MAX_REASON = 500
_SOURCE_QUOTE = re.compile(r"^\s*(?:\d+ \|.*|\|?\s*\^?\s*\|?|<non-verbose/>)$", re.MULTILINE)
"""Lines in llguidance's messages that show where in the text an error is."""


class Grammar:
    """A compiled grammar. What its matchers learn of its automaton they share."""

    def __init__(self, prototype: LLMatcher, vocab_size: int, discard: Callable[[], object]) -> None:
        self.vocab_size = vocab_size
        self.discard = discard
        """Called from any thread when its automaton may be full: later requests are to compile it anew."""
        self._prototype = prototype

    def start(self) -> LLMatcher:
        """A matcher at the beginning."""
        return self._prototype.deep_copy()


class Matcher:
    """How far one sequence is in its grammar."""

    __slots__ = ("_mask", "_matcher", "error", "finished", "grammar")

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.error: str | None = None
        """Why it cannot go on: the grammar turned out to be too complex for its limits."""
        self.finished = False
        """Whether the text is complete and nothing may follow."""
        self._matcher: LLMatcher | None = None
        self._mask: Mask | None = None
        """Of the position, once it was asked for."""

    @property
    def position(self) -> LLMatcher:
        """The matcher of llguidance; made where it is first needed, as copying waits for masks in work."""
        if self._matcher is None:
            self._matcher = self.grammar.start()
        return self._matcher

    @property
    def is_over(self) -> bool:
        """Whether it says nothing of what may follow."""
        return self.finished or self.error is not None

    def mask(self) -> Mask | None:
        """The tokens that may come next; None: any, as it is over.

        End tokens are among them exactly where the grammar is satisfied. To compute it takes 0.05 to 10 ms,
        once for each position. A matcher that fails gets its `error`.
        """
        if self._mask is None and not self.is_over:
            bits = np.zeros(-(-self.grammar.vocab_size // 32), np.uint32)
            self.position.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
            self.check()
            if self.error is None and not bits.any():
                self.error = "no token can follow"
            if self.error is None:
                self._mask = mask_of(bits.tobytes())
        return self._mask

    def advance(self, token_id: int) -> None:
        """Take the token that was drawn; never an end token."""
        self._mask = None
        self.position.consume_token(token_id)
        self.check()
        self.finished = self.error is None and self.position.is_stopped()

    def check(self) -> None:
        """Notice an error."""
        if self.error is None and self.position.is_error():
            self.error = reason_of(self.position.get_error())
            self.grammar.discard()


def reason_of(message: str) -> str:
    """An error of llguidance on one line, without quotations of the source."""
    if "NoExtension" in message:
        return "no text can match it"
    return " ".join(_SOURCE_QUOTE.sub("", message).split())[:_MAX_REASON]
