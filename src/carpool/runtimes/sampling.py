"""Drawing the next tokens from logits on the host.

Every draw is a function of one row of logits, its sample and the sample's own random stream, so it does not
depend on what else is in the batch. What costs is passes over rows of 50,000 logits and calls for each row,
so there are few of either: the rows of a step are gone through together, once, for the statistics of their
strands (`selection`), and anything else looks into few strands. A runtime may bring its own
`StrandStatistics`.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes import rejection
from carpool.runtimes.candidates import drawn_within
from carpool.runtimes.decoder import Sample, StepResult, TokenLogprobs
from carpool.runtimes.half import Logits, likeliest, numbers
from carpool.runtimes.logits_processing import is_processed, process
from carpool.runtimes.selection import (
    Doubles,
    Strands,
    StrandStatistics,
    above,
    drawn_in_strands,
    look,
    ranked,
    strand_statistics,
    whole_strands,
)

Words = NDArray[np.uint64]
"""They wrap."""

_GROUP = 32
"""Rows that are drawn from together; their logits should stay in the processor's caches."""
_LOWEST_TEMPERATURE = 1e-5
"""Below it the likeliest token has all the mass in float32 anyway."""


def sample(
    logits: Logits,
    samples: Sequence[Sample],
    statistics: StrandStatistics = strand_statistics,
    *,
    nan_fills_rows: bool = False,
) -> StepResult:
    """Draw one token for each row of logits [len(samples), vocab_size], which may be overwritten.

    `nan_fills_rows`: where there is a NaN in a row, it has nothing else.

    A row whose largest logit, or logprob, is not finite is unusable, and does not touch the others. Raises
    `ValueError` for a grammar mask that allows no token.
    """
    if all(map(_is_argmax, samples)):
        places = likeliest(logits, nan_fills_rows=nan_fills_rows)
        if places is not None:
            return StepResult(places, [None] * len(samples), [])
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs | None] = []
    unusable: list[int] = []
    for begin in range(0, len(samples), _GROUP):
        rows, group = whole_strands(logits[begin : begin + _GROUP]), samples[begin : begin + _GROUP]
        with np.errstate(over="ignore", invalid="ignore"):  # in rows that are not usable
            drawn, of_drawn = _draw_group(rows, group, statistics)
        for i, found in of_drawn.items():
            if not math.isfinite(found.logprob):  # for what was not allowed to be drawn
                del drawn[i]
        token_ids += [drawn.get(i, 0) for i in range(len(group))]
        logprobs += [of_drawn.get(i) if i in drawn else None for i in range(len(group))]
        unusable += [begin + i for i in range(len(group)) if i not in drawn]
    return StepResult(token_ids, logprobs, unusable)


def _is_argmax(each: Sample) -> bool:
    """Whether the place of the largest logit is all that is asked for."""
    return each.params.temperature == 0 and each.params.top_logprobs is None and not is_processed(each)


def _draw_group(
    rows: Logits, samples: Sequence[Sample], statistics: StrandStatistics
) -> tuple[dict[int, int], dict[int, TokenLogprobs]]:
    """A token for each row of logits that is usable, and the logprobs that are asked for."""
    tops = {i: top for i, each in enumerate(samples) if (top := each.params.top_logprobs) is not None}
    processed = {i: each for i, each in enumerate(samples) if is_processed(each)}
    factors = np.ones((len(rows), 2), np.float32)
    factors[:, 0] = [1 / max(each.params.temperature or 1, _LOWEST_TEMPERATURE) for each in samples]
    if not tops:
        apart = process(rows, processed) if processed else None
        [strands] = look(rows, factors[:, :1], statistics, apart)
        return _draw(strands, samples), {}
    if not processed:
        strands, unprocessed = look(rows, factors, statistics)
        drawn = _draw(strands, samples)
    else:
        as_computed = rows.copy()
        [strands] = look(rows, factors[:, :1], statistics, process(rows, processed))
        drawn = _draw(strands, samples)
        [unprocessed] = look(as_computed, factors[:, 1:], statistics)
    asked = [i for i in tops if i in drawn]
    if not asked:
        return drawn, {}
    logprobs = token_logprobs(unprocessed.of(asked), [drawn[i] for i in asked], [tops[i] for i in asked])
    return drawn, dict(zip(asked, logprobs, strict=True))


def _draw(strands: Strands, samples: Sequence[Sample]) -> dict[int, int]:
    """A token of each row that is usable."""
    masses = strands.masses
    is_usable = np.isfinite(strands.highest) & np.isfinite(masses) & (masses > 0)
    greedy: list[int] = []
    unlimited: list[int] = []
    by_rejection: list[int] = []
    limited: list[int] = []
    for i in np.flatnonzero(is_usable).tolist():
        asked = samples[i].params
        if asked.temperature == 0:
            greedy.append(i)
        elif not asked.top_k and not asked.min_p and asked.top_p == 1:
            unlimited.append(i)
        else:
            (by_rejection if rejection.is_worth_it(asked) else limited).append(i)
    seeds = [each.params.seed for each in samples]
    indices = [len(each.output_ids) for each in samples]
    fractions = uniform(seeds, indices)
    found: dict[int, int] = {}
    if greedy:
        of_greedy = strands.of(greedy)
        largest = above(of_greedy, of_greedy.highest)
        found |= zip(greedy, largest.ids[[0, *largest.ends[:-1]]].tolist(), strict=True)
    if unlimited:
        token_ids, _ = drawn_in_strands(strands.of(unlimited), fractions[unlimited])
        found |= zip(unlimited, token_ids.tolist(), strict=True)
    if by_rejection:
        params = [samples[i].params for i in by_rejection]
        token_ids, are_left = rejection.draw_and_test(
            strands.of(by_rejection), params, fractions[by_rejection]
        )
        found |= zip(by_rejection, token_ids.tolist(), strict=True)
        rejected = [by_rejection[place] for place in np.flatnonzero(~are_left).tolist()]
        if rejected:
            # Negative indices, which no token has: a second number of the same stream for the same token.
            fractions[rejected] = uniform([seeds[i] for i in rejected], [-1 - indices[i] for i in rejected])
            limited = sorted(limited + rejected)
    if limited:
        params = [samples[i].params for i in limited]
        token_ids = drawn_within(strands.of(limited), params, fractions[limited])
        found |= zip(limited, token_ids.tolist(), strict=True)
    return found


def token_logprobs(strands: Strands, token_ids: Sequence[int], tops: Sequence[int]) -> list[TokenLogprobs]:
    """For each row of unprocessed logits, with factor 1, a token's logprob and those of its likeliest."""
    totals = strands.highest + np.log(strands.masses)
    logprobs = numbers(strands.elements[strands.rows, token_ids]) - totals
    rows, ids, elements, ends = above(strands, ranked(strands.maxima, tops))
    order = np.lexsort((-elements, rows))  # stable: of equals the first tokens
    likeliest_ids, of_likeliest = ids[order].tolist(), (elements - totals[rows])[order].tolist()
    found = []
    begin = 0
    for logprob, top, end in zip(logprobs.tolist(), tops, ends.tolist(), strict=True):
        here = slice(begin, min(begin + top, end))
        of_top = zip(likeliest_ids[here], of_likeliest[here], strict=True)
        found.append(TokenLogprobs(logprob, list(of_top)))
        begin = end
    return found


def uniform(seeds: Sequence[int], indices: Sequence[int]) -> Doubles:
    """The random numbers in [0, 1) of streams, each at an index, by SplitMix64's output function.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, https://doi.org/10.1145/2660193.2660195
    """
    states = _mix(_words(seeds)) + _words(indices)
    return (_mix(states) >> np.uint64(11)) / (1 << 53)


def _words(values: Sequence[int]) -> Words:
    """Their lowest 64 bits."""
    return np.array([value & 0xFFFFFFFFFFFFFFFF for value in values], np.uint64)


def _mix(values: Words) -> Words:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
