"""Drawing the next tokens from logits on the host.

Every draw is a function of one row of logits, its sample and the sample's own random stream, so it does not
depend on what else is in the batch. What costs is passes over rows of 50,000 logits and calls for each row,
so there are few of either: no vocabulary is sorted, rows are looked at together, and where only some tokens
can be drawn, exponentials are taken of those only. A runtime may bring its own `Exponentials`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.decoder import Sample, SamplingParams, StepResult, TokenLogprobs
from carpool.runtimes.selection import above, drawn, drawn_from_long, largest, rows_of, strand_maxima

_GROUP = 32
"""Rows that are drawn from together; their logits and weights should stay in the processor's caches."""
_SMALL_NUCLEI = (32, 256)
"""Tokens among which a top_p nucleus is looked for, before it is looked for among all."""
_NEGLIGIBLE = 30.0
"""Tokens whose weight is below exp(-30) of the likeliest one's are lost in rounding, all of them together."""
_NARROW = 0.6
"""Below this temperature most of a vocabulary is negligible."""
_LOWEST_TEMPERATURE = 1e-5
"""Below it the likeliest token has all the mass in float32 anyway."""

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]

Exponentials = Callable[[Floats, Floats], Floats]
"""Logits [n, vocab_size] and a factor for each row [n] to exp((logits - the row's largest) * factor), float32
[n, vocab_size]. A row's weights do not depend on the other rows. The next call may overwrite the result."""


def exponentials(logits: Floats, factors: Floats) -> Floats:
    """See `Exponentials`."""
    weights: Floats = logits - logits.max(axis=1, keepdims=True)
    weights *= factors[:, None]
    np.exp(weights, out=weights)
    return weights


def sample(logits: Floats, samples: Sequence[Sample], weigh: Exponentials = exponentials) -> StepResult:
    """Draw one token for each row of logits [len(samples), vocab_size], which are not changed.

    Raises `ValueError` for a grammar mask that allows no token.
    """
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs | None] = []
    for begin in range(0, len(samples), _GROUP):
        rows, group = logits[begin : begin + _GROUP], samples[begin : begin + _GROUP]
        token_ids += _draw_group(rows, group, weigh)
        logprobs += _logprobs(rows, group, token_ids[begin:], weigh)
    return StepResult(token_ids, logprobs)


def _draw_group(logits: Floats, samples: Sequence[Sample], weigh: Exponentials) -> list[int]:
    if all(map(_takes_logits_as_they_are, samples)):
        return _draw(logits, samples, weigh)
    changed = np.empty_like(logits)
    found = [0] * len(samples)
    others: list[int] = []  # rows with all tokens, drawn from together
    for i, each in enumerate(samples):
        if _takes_logits_as_they_are(each):
            changed[len(others)] = logits[i]
            others.append(i)
            continue
        ids, row = processed(logits[i], each, changed[len(others)])
        if ids is None:
            others.append(i)
        else:
            found[i] = int(ids[_draw(row[None, :], [each], exponentials)[0]])
    places = _draw(changed[: len(others)], [samples[i] for i in others], weigh)
    for i, place in zip(others, places, strict=True):
        found[i] = place
    return found


def _draw(rows: Floats, samples: Sequence[Sample], weigh: Exponentials) -> list[int]:
    """A place in each row of processed logits."""
    found = [0] * len(samples)
    unlimited: list[int] = []
    limited: list[int] = []
    for i, each in enumerate(samples):
        if each.params.temperature == 0:
            found[i] = int(rows[i].argmax())
        else:
            (unlimited if _takes_all(each.params, rows.shape[1]) else limited).append(i)
    fractions = [uniform(each.params.seed, len(each.output_ids)) for each in samples]
    if unlimited:
        factors = np.array([_factor(samples[i].params) for i in unlimited], np.float32)
        places = drawn_from_long(weigh(rows_of(rows, unlimited), factors), [fractions[i] for i in unlimited])
        for i, place in zip(unlimited, places, strict=True):
            found[i] = place
    if limited:
        left = candidates(rows_of(rows, limited), [samples[i].params for i in limited], weigh)
        for i, (ids, weights) in zip(limited, left, strict=True):
            found[i] = int(ids[drawn(weights, fractions[i])])
    return found


def _logprobs(
    logits: Floats, samples: Sequence[Sample], token_ids: Sequence[int], weigh: Exponentials
) -> list[TokenLogprobs | None]:
    found: list[TokenLogprobs | None] = [None] * len(samples)
    asked = [i for i, each in enumerate(samples) if each.params.top_logprobs is not None]
    if asked:
        tops = [samples[i].params.top_logprobs or 0 for i in asked]
        of_asked = token_logprobs(rows_of(logits, asked), [token_ids[i] for i in asked], tops, weigh)
        for i, logprobs in zip(asked, of_asked, strict=True):
            found[i] = logprobs
    return found


def token_logprobs(
    rows: Floats, token_ids: Sequence[int], tops: Sequence[int], weigh: Exponentials = exponentials
) -> list[TokenLogprobs]:
    """For each row of unprocessed logits the logprob of a token and those of its `tops[i]` likeliest."""
    maxima = strand_maxima(rows)
    totals = weigh(rows, np.ones(len(rows), np.float32)).sum(axis=1)  # pairwise, so float32 is enough
    found = []
    for row, token_id, highest, total, likeliest in zip(
        rows, token_ids, maxima.max(axis=1), totals, largest(rows, tops, maxima), strict=True
    ):
        log_total = float(highest) + math.log(total)
        top = [(int(i), float(row[i]) - log_total) for i in likeliest]
        found.append(TokenLogprobs(float(row[token_id]) - log_total, top))
    return found


def candidates(
    rows: Floats, params: Sequence[SamplingParams], weigh: Exponentials = exponentials
) -> list[tuple[Ids, Floats]]:
    """For each row the tokens that temperature, top_k, top_p and min_p leave, and their weights.

    Applied in this order, as Hugging Face does: top_p counts the mass of what top_k left. `rows` are
    processed logits [n, vocab_size]; temperatures are above 0. Weights need not sum to 1. Tokens whose mass
    is lost in rounding may be left out.
    """
    maxima = strand_maxima(rows)
    found: list[tuple[Ids, Floats]] = [_NOTHING] * len(rows)
    weighed = [i for i, each in enumerate(params) if _weighs_all(each, rows.shape[1])]
    picked = [i for i in range(len(rows)) if i not in weighed]
    if weighed:
        factors = np.array([_factor(params[i]) for i in weighed], np.float32)
        weights = weigh(rows_of(rows, weighed), factors)
        shares = [params[i].top_p for i in weighed]
        nuclei = _nuclei(rows_of(rows, weighed), weights, shares, rows_of(maxima, weighed))
        for i, row, ids in zip(weighed, weights, nuclei, strict=True):
            found[i] = ids, row[ids]
    if picked:
        left = _pick(rows_of(rows, picked), [params[i] for i in picked], rows_of(maxima, picked))
        for i, (ids, of_ids) in zip(picked, left, strict=True):
            inside = _nucleus(of_ids, params[i].top_p)
            found[i] = ids[inside], of_ids[inside]
    for i, (ids, of_ids) in enumerate(found):
        if params[i].min_p > 0:  # the highest weight is 1
            likely = of_ids >= params[i].min_p
            found[i] = ids[likely], of_ids[likely]
    return found


_NOTHING = (np.empty(0, np.intp), np.empty(0, np.float32))


def _pick(rows: Floats, params: Sequence[SamplingParams], maxima: Floats) -> list[tuple[Ids, Floats]]:
    """The tokens that top_k leaves, or without it those that are not negligible, with their weights."""
    size = rows.shape[1]
    highest = maxima.max(axis=1)
    found: list[tuple[Ids, Floats]] = [_NOTHING] * len(rows)
    by_rank = [i for i, each in enumerate(params) if 0 < each.top_k < size]
    by_depth = [i for i in range(len(rows)) if i not in by_rank]
    ids: list[Ids] = []
    if by_rank:
        ids += largest(rows_of(rows, by_rank), [params[i].top_k for i in by_rank], rows_of(maxima, by_rank))
    if by_depth:
        depths = np.array([_depth(params[i]) for i in by_depth], np.float32)
        ids += above(rows_of(rows, by_depth), highest[by_depth] - depths)
    for i, chosen in zip([*by_rank, *by_depth], ids, strict=True):
        found[i] = chosen, np.exp((rows[i, chosen] - highest[i]) * np.float32(_factor(params[i])))
    return found


def _takes_all(params: SamplingParams, size: int) -> bool:
    """Whether every token can be drawn."""
    return params.top_p == 1 and params.min_p == 0 and _weighs_all(params, size)


def _weighs_all(params: SamplingParams, size: int) -> bool:
    """Whether the exponentials of all logits are needed."""
    return not 0 < params.top_k < size and _depth(params) >= _NEGLIGIBLE * _NARROW


def _depth(params: SamplingParams) -> float:
    """How far below the largest logit the mass is negligible, or below min_p if that is all that counts."""
    # With top_p all mass counts. The 1 leaves room for rounding: min_p itself is applied at the end.
    depth = _NEGLIGIBLE if params.min_p == 0 or params.top_p < 1 else 1 - math.log(params.min_p)
    return depth / _factor(params)


def _factor(params: SamplingParams) -> float:
    return 1 / max(params.temperature, _LOWEST_TEMPERATURE)


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


def _takes_logits_as_they_are(each: Sample) -> bool:
    params = each.params
    return (
        params.repetition_penalty == 1
        and params.frequency_penalty == 0
        and params.presence_penalty == 0
        and not params.logit_bias
        and not each.banned_ids
        and each.allowed is None
    )


def processed(row: Floats, each: Sample, scratch: Floats | None = None) -> tuple[Ids | None, Floats]:
    """A row [vocab_size] after penalties, bias, bans and grammar, in `scratch` if that is given.

    Where a grammar leaves less than half of the tokens, the row is that of their ids, which come first.
    Repetition: Keskar et al., https://arxiv.org/abs/1909.05858, over prompt and output. Frequency and
    presence: OpenAI's, over the output. Bans yield where they would leave nothing. Raises `ValueError` for a
    grammar mask that allows no token.
    """
    params = each.params
    row = np.add(row, np.float32(0), out=scratch)
    if params.repetition_penalty != 1:
        seen = np.array([*each.prompt_ids, *each.output_ids], np.intp)
        logits = row[seen]  # the same for a token that comes twice
        row[seen] = np.where(
            logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty
        )
    if each.output_ids and (params.frequency_penalty or params.presence_penalty):
        drawn, counts = np.unique(np.array(each.output_ids, np.intp), return_counts=True)
        row[drawn] -= (params.frequency_penalty * counts + params.presence_penalty).astype(np.float32)
    if params.logit_bias:
        row[np.array([*params.logit_bias], np.intp)] += np.array([*params.logit_bias.values()], np.float32)
    banned = np.array(each.banned_ids, np.intp)
    ids = None
    if each.allowed is not None:
        bits = np.unpackbits(each.allowed.view(np.uint8), bitorder="little")[: len(row)].view(np.bool_)
        count = np.count_nonzero(bits)
        if count == 0:
            raise ValueError("the grammar allows no token")
        if 2 * count < len(row):
            ids = np.flatnonzero(bits)
            row, banned = row[ids], np.flatnonzero(np.isin(ids, banned))
        else:
            row[np.flatnonzero(~bits)] = -np.inf
    if len(banned):
        logits = row[banned]
        row[banned] = -np.inf
        if row.max() == -np.inf:
            row[banned] = logits
    return ids, row


def _nuclei(rows: Floats, weights: Floats, shares: Sequence[float], maxima: Floats) -> list[Ids]:
    """For each row the fewest tokens whose weights make up that share of their sum: the likeliest ones.

    Most nuclei are among the first few.
    """
    masses = np.array(shares) * weights.sum(axis=1)
    found: dict[int, Ids] = {}
    for count in _SMALL_NUCLEI:
        wide = [i for i, share in enumerate(shares) if i not in found and share < 1]
        if not wide or count > maxima.shape[1]:
            break
        likeliest = largest(rows, [count if i in wide else 0 for i in range(len(rows))], maxima)
        for i in wide:
            first = likeliest[i]
            reached = np.cumsum(weights[i, first], dtype=np.float64)
            if reached[-1] >= masses[i]:
                found[i] = first[: np.searchsorted(reached, masses[i]) + 1]
    return [found[i] if i in found else _nucleus(weights[i], shares[i]) for i in range(len(rows))]


def _nucleus(weights: Floats, share: float) -> Ids:
    """The same for one row of any length.

    The values alone are sorted, which vector instructions do much faster than to sort places, and the
    smallest one that is needed is the floor.
    """
    if share == 1:
        return np.arange(len(weights))
    total = float(weights.sum())
    # All weights below this floor together are less than the rest that is left out.
    large = np.flatnonzero(weights >= (1 - share) * total / len(weights))
    descending = np.sort(weights[large])[::-1]
    reached = np.cumsum(descending, dtype=np.float64)
    size = min(int(np.searchsorted(reached, share * total)), len(large) - 1) + 1
    inside = large[weights[large] >= descending[size - 1]]
    equal = np.flatnonzero(weights[inside] == descending[size - 1])
    kept: Ids = np.delete(inside, equal[len(equal) - (len(inside) - size) :])  # the first ones of the equal
    return kept
