"""What changes logits before a draw: penalties, bias, bans and grammars.

Few of a row's logits are changed, so they are changed in place and put back after the draw.
"""

from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.decoder import Sample
from carpool.runtimes.token_history import Ids, TokenHistory

Floats = NDArray[np.float32]

_LOWEST_REPETITION_PENALTY = 1e-20
"""Smaller ones act alike, but logits divided by them may leave float32's range."""


class Changes:
    """Changes of rows that are undone when the block ends."""

    def __init__(self) -> None:
        self._before: list[tuple[Floats, Ids, Floats]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for row, ids, values in reversed(self._before):
            row[ids] = values

    def put(self, row: Floats, ids: Ids, values: Floats | float) -> None:
        """Set some elements of a row."""
        self._before.append((row, ids, row[ids]))
        row[ids] = values


def is_processed(each: Sample) -> bool:
    """Whether something changes its logits."""
    params = each.params
    return (
        params.repetition_penalty != 1
        or params.frequency_penalty != 0
        or params.presence_penalty != 0
        or bool(params.logit_bias)
        or bool(each.banned_ids)
        or each.allowed is not None
    )


def process(row: Floats, each: Sample, changes: Changes) -> Ids | None:
    """Apply penalties, bias, bans and grammar to a row [at least vocab_size], where elements beyond are -inf.

    Where a grammar leaves less than half of the tokens, their ids are returned and the others are not
    changed. Repetition: Keskar et al., https://arxiv.org/abs/1909.05858, over prompt and output. Frequency
    and presence: OpenAI's, over the output. Bans yield where they would leave nothing. Raises `ValueError`
    for a grammar mask that allows no token.
    """
    params = each.params
    history = each.history or TokenHistory(each.prompt_ids, each.output_ids)
    if params.repetition_penalty != 1:
        seen = history.tokens()
        logits = row[seen]
        penalty = np.float32(max(params.repetition_penalty, _LOWEST_REPETITION_PENALTY))
        changes.put(row, seen, np.where(logits > 0, logits / penalty, logits * penalty))
    if each.output_ids and (params.frequency_penalty or params.presence_penalty):
        drawn, times = history.drawn()
        penalties = (params.frequency_penalty * times + params.presence_penalty).astype(np.float32)
        changes.put(row, drawn, row[drawn] - penalties)
    if params.logit_bias:
        biased = np.array([*params.logit_bias], np.intp)
        changes.put(row, biased, row[biased] + np.array([*params.logit_bias.values()], np.float32))
    allowed = None if each.allowed is None else _allow(row, each.allowed, changes)
    if each.banned_ids:
        _ban(row, np.array(each.banned_ids, np.intp), allowed, changes)
    return allowed


def _allow(row: Floats, mask: NDArray[np.uint32], changes: Changes) -> Ids | None:
    """The tokens that a mask leaves, if they are few; if they are many the others are taken out."""
    count = int(np.bitwise_count(mask).sum())
    if count == 0:
        raise ValueError("the grammar allows no token")
    if 2 * count < len(row):
        return _set_bits(mask)
    forbidden = _set_bits(~mask)
    changes.put(row, forbidden[: np.searchsorted(forbidden, len(row))], -np.inf)
    return None


def _ban(row: Floats, banned: Ids, allowed: Ids | None, changes: Changes) -> None:
    logits = row[banned]
    changes.put(row, banned, -np.inf)
    if (row if allowed is None else row[allowed]).max() == -np.inf:
        changes.put(row, banned, logits)


def _set_bits(mask: NDArray[np.uint32]) -> Ids:
    """Places of the ones, little-endian, ascending. Words of zeros, most of them as a rule, cost nothing."""
    words = np.flatnonzero(mask)
    word, bit = np.divmod(np.flatnonzero(np.unpackbits(mask[words].view(np.uint8), bitorder="little")), 32)
    return words[word] * 32 + bit
