"""What changes logits before a draw: penalties, bias, bans and grammars.

Few of a row's logits are changed. Those leave their row and stand apart, as float32: so the row may be of a
type that does not hold their values, and what they become is computed for all rows at once.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from carpool.runtimes.decoder import Sample
from carpool.runtimes.half import Floats, Logits, minus_infinity, numbers
from carpool.runtimes.mask import Mask
from carpool.runtimes.selection import STRAND, Apart, Ids
from carpool.runtimes.token_history import TokenHistory

_LOWEST_REPETITION_PENALTY, _HIGHEST_REPETITION_PENALTY = 1e-20, 1e20
"""What is beyond acts alike, but logits that it scales may leave float32's range."""

_NONE = np.zeros(0, np.intp)


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


def process(rows: Logits, samples: Mapping[int, Sample]) -> Apart:
    """Apply the penalties, bias, bans and grammars of some rows' samples.

    In the rows [n, whole strands], where elements beyond the vocabulary are -inf, what stands apart is set
    to -inf, and so is what a grammar forbids. Repetition: Keskar et al., https://arxiv.org/abs/1909.05858,
    over prompt and output. Frequency and presence: OpenAI's, over the output. Bans yield where they would
    leave nothing. Raises `ValueError` for a grammar mask that allows no token.
    """
    few = _allow(rows, _masks(samples))
    counted = {i: _counted(each) for i, each in samples.items()}
    penalised = {i: ids for i, (ids, _) in counted.items()}
    others = {i: _others(each, penalised[i], few.get(i, _NONE)) for i, each in samples.items()}
    apart = _set_apart(rows, penalised, others)
    apart.are_all[[*few]] = True
    _penalise(apart.elements, samples, {i: times for i, (_, times) in counted.items()})
    for i, each in samples.items():
        ids, elements = apart.ids[i], apart.elements[i]
        bias = each.params.logit_bias
        if bias:
            elements[_places(ids, [*bias])] += np.array([*bias.values()], np.float32)
        if i in few and len(penalised[i]) + len(others[i]) > len(few[i]):
            elements[~np.isin(ids, few[i])] = -np.inf
        if each.banned_ids:
            _ban(elements, _places(ids, each.banned_ids), None if i in few else rows[i])
    return apart


def _masks(samples: Mapping[int, Sample]) -> dict[int, Mask]:
    found = {i: each.allowed() for i, each in samples.items() if each.allowed is not None}
    return {i: mask for i, mask in found.items() if mask is not None}


def _allow(rows: Logits, masks: Mapping[int, Mask]) -> dict[int, Ids]:
    """Take out what some rows' masks forbid; where a mask lists what it allows, that is returned instead."""
    few = {}
    for i, mask in masks.items():
        if not mask.lists_allowed:
            rows[i, mask.ids] = minus_infinity(rows)
        elif len(mask.ids):
            few[i] = mask.ids.astype(np.intp)
        else:
            raise ValueError("the grammar allows no token")
    return few


def _counted(each: Sample) -> tuple[Ids, Ids]:
    """The tokens that penalties change, and how often each was drawn."""
    params = each.params
    repeats = params.repetition_penalty != 1
    if not repeats and not params.frequency_penalty and not params.presence_penalty:
        return _NONE, _NONE
    history = each.history or TokenHistory(each.prompt_ids, each.output_ids)
    return history.seen() if repeats else history.drawn()


def _others(each: Sample, penalised: Ids, allowed: Ids) -> Ids:
    """What else is to stand apart, once each."""
    named = [*each.params.logit_bias, *each.banned_ids]
    if not named and (len(penalised) == 0 or len(allowed) == 0):
        return allowed
    return np.setdiff1d(np.concatenate([np.array(named, np.intp), allowed]), penalised)


def _set_apart(rows: Logits, penalised: Mapping[int, Ids], others: Mapping[int, Ids]) -> Apart:
    """Move elements of some rows beside them: each kind begins in the same place of all rows."""
    widths = [max(map(len, kind.values())) for kind in (penalised, others)]
    shape = len(rows), -(-max(sum(widths), 1) // STRAND) * STRAND
    moved = np.full(shape, minus_infinity(rows), rows.dtype)
    ids_of_all = np.full(shape, -1)
    for begin, kind in zip((0, widths[0]), (penalised, others), strict=True):
        for i, ids in kind.items():
            if len(ids):
                row, here = rows[i], slice(begin, begin + len(ids))
                ids_of_all[i, here] = ids
                moved[i, here] = row.take(ids)
                row[ids] = minus_infinity(rows)
    return Apart(ids_of_all, numbers(moved), np.zeros(len(rows), np.bool_))


def _penalise(elements: Floats, samples: Mapping[int, Sample], times: Mapping[int, Ids]) -> None:
    """Lower the first elements of some rows by how often their tokens were drawn."""
    width = max(map(len, times.values()))
    if width == 0:
        return
    counts = np.zeros((len(elements), width), np.float32)
    repetition = np.ones((len(elements), 1), np.float32)
    frequency, presence = np.zeros((2, len(elements), 1), np.float32)
    for i, each in samples.items():
        counts[i, : len(times[i])] = times[i]
        penalty = max(each.params.repetition_penalty, _LOWEST_REPETITION_PENALTY)
        repetition[i] = min(penalty, _HIGHEST_REPETITION_PENALTY)
        frequency[i] = each.params.frequency_penalty
        presence[i] = each.params.presence_penalty
    first = elements[:, :width]
    if (repetition != 1).any():
        positive = np.maximum(first, 0) / repetition
        np.minimum(first, 0, out=first)
        first *= repetition
        first += positive  # one of the two is 0; to choose by `np.where` takes three times as long
    if presence.any():
        first -= (counts > 0) * presence
    counts *= frequency
    first -= counts


def _places(ids: Ids, wanted: Sequence[int]) -> Ids:
    """Where some of the tokens are; those wanted are all there, once each."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _ban(elements: Floats, places: Ids, row: Logits | None) -> None:
    """Take out what stands apart in some places, if something is left then, there or in the row."""
    before = elements[places]
    elements[places] = -np.inf
    if (elements == -np.inf).all() and (row is None or (row == minus_infinity(row)).all()):
        elements[places] = before
