"""Grammars: what a text may look like, as the set of tokens that may come next. The work is llguidance's.

A `Grammar` is compiled (`grammar_compiler`) and serves any number of sequences; each follows it with a
`Matcher` of its own. Matchers are used in the engine's step thread only.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

_MAX_REASON = 500
_SOURCE_QUOTE = re.compile(r"^\s*(?:\d+ \|.*|\|?\s*\^?\s*\|?|<non-verbose/>)$", re.MULTILINE)
"""Lines in llguidance's messages that show where in the text an error is."""

Masks = NDArray[np.uint32]


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

    __slots__ = ("_matcher", "error", "finished", "grammar")

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.error: str | None = None
        """Why it cannot go on: the grammar turned out to be too complex for its limits."""
        self.finished = False
        """Whether the text is complete and nothing may follow."""
        self._matcher: LLMatcher | None = None

    @property
    def position(self) -> LLMatcher:
        """The matcher of llguidance; made where it is first needed, as copying waits for masks in work."""
        if self._matcher is None:
            self._matcher = self.grammar.start()
        return self._matcher

    def advance(self, token_id: int) -> None:
        """Take the token that was drawn; never an end token."""
        self.position.consume_token(token_id)
        self.check()
        self.finished = self.error is None and self.position.is_stopped()

    def check(self) -> None:
        """Notice an error."""
        if self.error is None and self.position.is_error():
            self.error = reason_of(self.position.get_error())
            self.grammar.discard()


def next_masks(matchers: Sequence[Matcher]) -> Masks:
    """The tokens that may come next [len(matchers), ceil(vocab_size / 32)], little-endian bits.

    End tokens are among them exactly where the grammar is satisfied. A matcher that fails gets its `error`;
    its row means nothing. All matchers are of one model.
    """
    masks = np.zeros((len(matchers), -(-matchers[0].grammar.vocab_size // 32)), np.uint32)
    # One after the other: matchers of one grammar wait for each other anyway, and most masks of schemas take
    # less time than handing them to other threads.
    begins = range(masks.ctypes.data, masks.ctypes.data + masks.nbytes, masks.strides[0])
    for matcher, begin in zip(matchers, begins, strict=True):
        matcher.position.unsafe_compute_mask_ptr(begin, masks.strides[0])
        matcher.check()
    for row in np.flatnonzero(~masks.any(axis=1)).tolist():
        matchers[row].error = matchers[row].error or "no token can follow"
    return masks


def reason_of(message: str) -> str:
    """An error of llguidance on one line, without quotations of the source."""
    if "NoExtension" in message:
        return "no text can match it"
    return " ".join(_SOURCE_QUOTE.sub("", message).split())[:_MAX_REASON]
