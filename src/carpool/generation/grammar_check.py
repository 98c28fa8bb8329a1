"""Whether a grammar can be compiled with bounded time and memory: run as a script, in a process of its own.

llguidance bounds most of its work with the limits below, but not all: some regular expressions, say a number
that is a multiple of 99,999,989, take it minutes or gigabytes, and a thread cannot be ended. A process can.
What passes here is compiled again where it is used. The file imports nothing of Carpool: it starts faster.
"""

import itertools
import json
import resource
import sys
from collections.abc import Callable
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

MAX_CPU_S = 2
"""CPU seconds that reading and compiling a grammar may take."""
MAX_MEMORY_BYTES = 512 << 20
"""Address space of the checking process; it starts with about 150 MiB."""
LIMITS = LLParserLimits(max_grammar_size=60_000, max_lexer_states=50_000, verbose_errors=False)
"""llguidance's own: symbols of a grammar (it fails beyond 65,536), states of its automaton (1 to 2 KiB each).
What a single mask may cost is left at its defaults, which are about 15 ms."""

_STEPS = 64
"""Tokens of the trial run."""


class TokenList:
    """A vocabulary in the form that `LLTokenizer` reads."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self,
        tokens: list[bytes],
        end_ids: list[int],
        special_ids: list[int],
        encode: Callable[[str], list[int]],
    ) -> None:
        self.tokens = tokens
        self.eos_token_id = end_ids[0]
        self.special_token_ids = special_ids
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        """The tokens of a text that a grammar forces, so that the mask allows the first of them only."""
        return self._encode(text)


def byte_tokenizer(vocab_size: int, special: dict[int, str], end_ids: list[int]) -> LLTokenizer:
    """The special tokens where the model has them, and around them the first 256 ids of one byte each."""
    byte_ids = _byte_ids(special)
    tokens = [b""] * max(vocab_size, byte_ids[-1] + 1)
    for byte, id_ in enumerate(byte_ids):
        tokens[id_] = bytes([byte])
    for id_, text in special.items():
        tokens[id_] = text.encode()
    wrapper = TokenList(
        tokens, end_ids, list(special), lambda text: [byte_ids[byte] for byte in text.encode()]
    )
    return LLTokenizer(wrapper, n_vocab=len(tokens), eos_token=end_ids, slices=[])  # type: ignore[arg-type]


def check(grammar: str, tokenizer: LLTokenizer, byte_ids: list[int]) -> str:
    """What is wrong with a grammar; empty if nothing is. Follows it for a while, too."""
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    reason = matcher.get_error()
    for step in range(_STEPS):
        if matcher.is_stopped():
            break
        mask = matcher.compute_bitmask()
        allowed = [id_ for id_ in byte_ids if mask[id_ >> 3] >> (id_ & 7) & 1]
        if not allowed:
            break
        matcher.consume_token(allowed[step * 7919 % len(allowed)])
    return reason


def _byte_ids(special: dict[int, str]) -> list[int]:
    """The 256 lowest ids that are not special."""
    return list(itertools.islice((id_ for id_ in itertools.count() if id_ not in special), 256))


def main() -> None:
    """Read a request from standard input and write the reason of the refusal, or nothing, to the output."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request: dict[str, Any] = json.load(sys.stdin)
    special = {int(id_): text for id_, text in request["special"].items()}
    tokenizer = byte_tokenizer(request["vocab_size"], special, request["end_ids"])
    sys.stdout.write(check(request["grammar"], tokenizer, _byte_ids(special)))


if __name__ == "__main__":
    main()
