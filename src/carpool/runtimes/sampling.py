"""Drawing the next tokens from logits on the host.

Every draw is a function of one row of logits, its sample and the sample's own random stream, so it does not
depend on what else is in the batch. What costs is passes over rows of 50,000 logits and calls for each row,
so there are few of either: the rows of a step are gone through together, once, for the statistics of their
strands (`selection`), and anything else looks into few strands. A runtime may bring its own
`StrandStatistics`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.candidates import candidates
from carpool.runtimes.decoder import Sample, StepResult, TokenLogprobs
from carpool.runtimes.logits_processing import Changes, is_processed, process
from carpool.runtimes.selection import (
    Strands,
    StrandStatistics,
    above,
    drawn_in_strands,
    ranked,
    strand_statistics,
    whole_strands,
)

_GROUP = 32
"""Rows that are drawn from together; their logits should stay in the processor's caches."""
_LOWEST_TEMPERATURE = 1e-5
"""Below it the likeliest token has all the mass in float32 anyway."""

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]


def sample(
    logits: Floats, samples: Sequence[Sample], statistics: StrandStatistics = strand_statistics
) -> StepResult:
    """Draw one token for each row of logits [len(samples), vocab_size], which are in the end as they were.

    A row whose largest logit, or logprob, is not finite is unusable, and does not touch the others. Raises
    `ValueError` for a grammar mask that allows no token.
    """
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs | None] = []
    unusable: list[int] = []
    for begin in range(0, len(samples), _GROUP):
        rows, group = logits[begin : begin + _GROUP], samples[begin : begin + _GROUP]
        if not all(map(is_argmax, group)):
            rows = whole_strands(rows)
        drawn = _draw_group(rows, group, statistics)
        of_drawn = _logprobs(rows, group, drawn, statistics)
        for i, found in enumerate(of_drawn):
            if found is not None and not math.isfinite(found.logprob):  # for what was not allowed to be drawn
                del drawn[i]
                of_drawn[i] = None
        token_ids += [drawn.get(i, 0) for i in range(len(group))]
        logprobs += of_drawn
        unusable += [begin + i for i in range(len(group)) if i not in drawn]
    return StepResult(token_ids, logprobs, unusable)


def is_argmax(each: Sample) -> bool:
    """Whether the place of the largest logit is all that is asked for."""
    return each.params.temperature == 0 and each.params.top_logprobs is None and not is_processed(each)


def _draw_group(rows: Floats, samples: Sequence[Sample], statistics: StrandStatistics) -> dict[int, int]:
    """A token for each row of logits that is usable."""
    whole = dict(enumerate(samples))
    few: dict[int, Ids] = {}  # the tokens that a grammar leaves, where they are few
    with Changes() as changes:
        for i, each in enumerate(samples):
            allowed = process(rows[i], each, changes) if is_processed(each) else None
            if allowed is not None:
                few[i] = allowed
                del whole[i]
        found = _draw(rows, whole, statistics)
        if few:
            short = np.full((len(few), max(map(len, few.values()))), -np.inf, np.float32)
            for row, (i, ids) in zip(short, few.items(), strict=True):
                row[: len(ids)] = rows[i, ids]
            places = _draw(whole_strands(short), dict(enumerate(samples[i] for i in few)), strand_statistics)
            for place, (i, ids) in enumerate(few.items()):
                if place in places:
                    found[i] = int(ids[places[place]])
    return found


def _draw(rows: Floats, samples: Mapping[int, Sample], statistics: StrandStatistics) -> dict[int, int]:
    """A place in each row of processed logits that has a sample and is usable."""
    found: dict[int, int] = {}
    unlimited: list[int] = []
    limited: list[int] = []
    factors = np.ones(len(rows), np.float32)
    fractions = np.zeros(len(rows))
    for i, each in samples.items():
        params = each.params
        if params.temperature == 0:
            place = int(rows[i].argmax())  # the first NaN if there is one
            if math.isfinite(rows[i, place]):
                found[i] = place
            continue
        (unlimited if params.top_k == 0 and params.top_p == 1 and params.min_p == 0 else limited).append(i)
        factors[i] = 1 / max(params.temperature, _LOWEST_TEMPERATURE)
        fractions[i] = uniform(params.seed, len(each.output_ids))
    if not unlimited and not limited:
        return found
    strands = Strands.of_all(rows, factors, statistics)
    masses = strands.sums.sum(axis=1)
    is_usable = np.isfinite(strands.highest) & np.isfinite(masses) & (masses > 0)
    if not is_usable.all():
        unlimited = [i for i in unlimited if is_usable[i]]
        limited = [i for i in limited if is_usable[i]]
    if unlimited:
        places = drawn_in_strands(strands.of(unlimited), fractions[unlimited])
        found |= zip(unlimited, places.tolist(), strict=True)
    if limited:
        left = candidates(strands.of(limited), [samples[i].params for i in limited])
        for i, of_row in zip(limited, left, strict=True):
            found[i] = of_row.draw(fractions[i])
    return found


def _logprobs(
    logits: Floats, samples: Sequence[Sample], token_ids: Mapping[int, int], statistics: StrandStatistics
) -> list[TokenLogprobs | None]:
    tops = {
        i: each.params.top_logprobs
        for i, each in enumerate(samples)
        if each.params.top_logprobs is not None and i in token_ids
    }
    found: list[TokenLogprobs | None] = [None] * len(samples)
    if tops:
        strands = Strands.of_all(logits, np.ones(len(logits), np.float32), statistics).of([*tops])
        of_asked = token_logprobs(strands, [token_ids[i] for i in tops], [*tops.values()])
        for i, logprobs in zip(tops, of_asked, strict=True):
            found[i] = logprobs
    return found


def token_logprobs(strands: Strands, token_ids: Sequence[int], tops: Sequence[int]) -> list[TokenLogprobs]:
    """For each row of unprocessed logits, with factor 1, a token's logprob and those of its likeliest."""
    totals = strands.highest + np.log(strands.sums.sum(axis=1, dtype=np.float64))
    logprobs = strands.elements[strands.rows, token_ids] - totals
    rows, ids, elements, ends = above(strands, ranked(strands.maxima, tops))
    top_logprobs = elements - totals[rows]
    found = []
    begin = 0
    for logprob, top, end in zip(logprobs.tolist(), tops, ends.tolist(), strict=True):
        order = begin + np.argsort(-elements[begin:end], kind="stable")[:top]
        likeliest = zip(ids[order].tolist(), top_logprobs[order].tolist(), strict=True)
        found.append(TokenLogprobs(logprob, list(likeliest)))
        begin = end
    return found


def uniform(seed: int, index: int) -> float:
    """The random number in [0, 1) of a stream at an index, by SplitMix64's output function.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, https://doi.org/10.1145/2660193.2660195
    """
    return (_mix(_mix(seed) + index) >> 11) / (1 << 53)


def _mix(value: int) -> int:
    mask = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)
