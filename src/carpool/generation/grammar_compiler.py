"""From a client's text to a `Grammar`, within bounds."""

import asyncio
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLTokenizer

from carpool.errors import InvalidRequest, Overloaded
from carpool.models.tokenizer import Tokenizer
from carpool.models.tool_forms import HERMES, ToolForm

from . import grammar_check
from .grammar import Grammar, reason_of
from .grammar_check import LIMITS, MAX_CPU_S, MAX_MEMORY_BYTES, TokenList
from .tool_grammar import tool_grammar

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MAX_GRAMMARS = 32
"""Compiled grammars that are kept, the most recently used ones."""
MAX_GRAMMAR_CHARS = 128 * 1024
"""Characters of one schema, regular expression or grammar."""

_CHECK_TIMEOUT_S = 30.0
"""Wall time for a check whose CPU time is bounded; it only passes on a machine that has none to give."""
_WHITESPACE = r"[ \n\t]{1,20}"
"""Between the tokens of JSON. Unbounded, as JSON has it, small models go on with spaces for ever."""


class GrammarKind(StrEnum):
    """The languages grammars are written in."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    """Rust's syntax without look-around and back-references; the whole text must match."""
    LARK = "lark"
    """The dialect of Lark that llguidance reads."""
    TOOL_CALLS = "tool_calls"
    """What `tool_grammar` reads."""


@dataclass(frozen=True, slots=True)
class GrammarSource:
    """A grammar as it came."""

    kind: GrammarKind
    text: str


class GrammarCompiler:
    """Compiles grammars for one model, and keeps the latest.

    A client's grammar is hostile until proved otherwise. It is first compiled in a process that may take
    little time and memory (`grammar_check`), then here. Neither happens on the event loop.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, tool_form: ToolForm = HERMES) -> None:
        """Takes a part of a second. `vocab_size` is the decoder's, which may be larger than the tokenizer's.

        `tool_form` is the one that the model was taught.
        """
        self.vocab_size = vocab_size
        self._tool_form = tool_form
        marks = tokenizer.special_ids_of(tool_form.marks)
        self._mark_ids = {mark: id_ for mark, id_ in marks.items() if id_ < vocab_size}
        self._end_ids = [id_ for id_ in sorted(tokenizer.end_ids) if id_ < vocab_size]
        self._special = {
            id_: tokenizer.token_bytes[id_].decode(errors="replace")
            for id_ in sorted(tokenizer.special_ids)
            if id_ < vocab_size
        }
        self._tokenizer = self._ll_tokenizer(tokenizer) if self._end_ids else None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="grammar")
        self._grammars: OrderedDict[GrammarSource, asyncio.Future[Grammar]] = OrderedDict()

    async def compile(self, source: GrammarSource) -> Grammar:
        """The grammar, from the cache if it is there.

        Raises `InvalidRequest` with the reason for what is wrong, not supported or too complex, `Overloaded`
        where the machine is too busy to tell.
        """
        future = self._grammars.pop(source, None)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._threads, self._compile, source)
            future.add_done_callback(partial(self._compiled, source))
        self._grammars[source] = future  # the last one is the most recently used
        if len(self._grammars) > MAX_GRAMMARS:
            self._grammars.popitem(last=False)
        return await asyncio.shield(future)  # others may wait for it, too

    def close(self) -> None:
        """Compile no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compiled(self, source: GrammarSource, future: asyncio.Future[Grammar]) -> None:
        if (future.cancelled() or future.exception() is not None) and self._grammars.get(source) is future:
            del self._grammars[source]

    def _ll_tokenizer(self, tokenizer: Tokenizer) -> LLTokenizer:
        known = min(tokenizer.vocab_size, self.vocab_size)
        tokens = [tokenizer.token_bytes[id_] for id_ in range(known)]
        wrapper = TokenList(
            tokens + [b""] * (self.vocab_size - known),
            self._end_ids,
            list(self._special),
            lambda text: tokenizer.encode(tokenizer.guard(text), add_special_tokens=False),
        )
        return LLTokenizer(wrapper, n_vocab=self.vocab_size, eos_token=self._end_ids)  # type: ignore[arg-type]

    def _compile(self, source: GrammarSource) -> Grammar:
        if self._tokenizer is None:
            raise InvalidRequest("This model has no end token, so it cannot follow a grammar")
        if len(source.text) > MAX_GRAMMAR_CHARS:
            raise InvalidRequest(
                f"The grammar has {len(source.text)} characters; {MAX_GRAMMAR_CHARS} are allowed"
            )
        try:
            grammar = self._to_llguidance(source)
        except ValueError as error:
            raise _invalid(str(error)) from error
        self._check(grammar)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # most of what the first token of every sequence needs
        if matcher.is_error():
            raise _invalid(matcher.get_error())
        return Grammar(matcher, self.vocab_size, lambda: self._grammars.pop(source, None))

    def _to_llguidance(self, source: GrammarSource) -> str:
        if source.kind is GrammarKind.TOOL_CALLS:
            lark = tool_grammar(source.text, self._tool_form, self._mark_ids, _JSON_OPTIONS)
            return LLMatcher.grammar_from_lark(lark)
        return _TO_LLGUIDANCE[source.kind](source.text)

    def _check(self, grammar: str) -> None:
        request = {
            "grammar": grammar,
            "vocab_size": self.vocab_size,
            "special": self._special,
            "end_ids": self._end_ids,
        }
        # Not isolated: it has to find llguidance wherever this process has found it.
        command = [sys.executable, "-P", grammar_check.__file__]
        try:
            done = subprocess.run(  # noqa: S603  # our own file
                command, input=json.dumps(request), capture_output=True, text=True, timeout=_CHECK_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise Overloaded("The server is too busy to check the grammar", retry_after_s=5.0) from error
        if done.returncode:
            raise _invalid(f"to compile it takes more than {MAX_CPU_S} s or {MAX_MEMORY_BYTES >> 20} MiB")
        if done.stdout:
            raise _invalid(done.stdout)


_JSON_OPTIONS: "JsonCompileOptions" = {
    "whitespace_pattern": _WHITESPACE,
    "lenient": False,
    "coerce_one_of": False,
}


def _json_schema(text: str) -> str:
    # `overrides` go before what the schema asks for in its "x-guidance".
    return LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)


_TO_LLGUIDANCE: dict[GrammarKind, Callable[[str], str]] = {
    GrammarKind.JSON_SCHEMA: _json_schema,
    GrammarKind.REGEX: LLMatcher.grammar_from_regex,
    GrammarKind.LARK: LLMatcher.grammar_from_lark,
}


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The grammar cannot be used: {reason_of(reason)}")
