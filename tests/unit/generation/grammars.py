"""Grammars over the simulated decoder's vocabulary, and a decoder that keeps to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers

from carpool.generation import Grammar, GrammarCompiler, GrammarKind, GrammarSource
from carpool.generation.grammar import Matcher
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import Sample, StepBatch
from carpool.runtimes.mask import Mask
from tests.unit.generation.simulated_decoder import VOCAB_SIZE, SimulatedDecoder

END = VOCAB_SIZE - 1


def ascii_tokenizer(end: str | None = "<|end|>", marks: Sequence[str] = ()) -> Tokenizer:
    """A token for each printable ASCII character, for space and newline, one that ends a text, and marks."""
    characters = [*map(chr, range(0x21, 0x7F)), "\u0120", "\u010a"]
    backend = tokenizers.Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([end or "<|pad|>", *marks])
    return Tokenizer(backend, eos_token=end)


TOKENIZER = ascii_tokenizer()


def compiler(tokenizer: Tokenizer = TOKENIZER) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, VOCAB_SIZE)


async def compiled(kind: GrammarKind, text: str) -> Grammar:
    return await compiler().compile(GrammarSource(kind, text))


async def regex(pattern: str) -> Grammar:
    return await compiled(GrammarKind.REGEX, pattern)


def ids(mask: Mask) -> list[int]:
    """The tokens a mask allows."""
    assert mask.lists_allowed  # as this vocabulary is small
    return [*map(int, mask.ids)]


def allowed_ids(matcher: Matcher) -> list[int]:
    """The tokens that may follow."""
    mask = matcher.mask()
    assert mask is not None
    return ids(mask)


@dataclass
class MaskedDecoder(SimulatedDecoder):
    """Draws among the allowed tokens; which one still depends on what the KV memory holds."""

    def _draw(self, batch: StepBatch, table: NDArray[np.int32], sample: Sample) -> int:
        drawn = super()._draw(batch, table, sample)
        mask = None if sample.allowed is None else sample.allowed()
        if mask is None:
            return drawn
        allowed = ids(mask)
        wanted = [token_id for token_id in allowed if token_id not in sample.banned_ids] or allowed
        return wanted[drawn % len(wanted)]
