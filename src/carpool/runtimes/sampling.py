"""Drawing the next tokens from logits on the host.

Every draw is a function of one row of logits, its sample and the sample's own random stream, so it does not
depend on what else is in the batch. Rows are processed one by one: a row of 50,000 logits stays in the core's
cache through all passes over it. The passes are what costs, so there are few: no vocabulary is sorted, and
where only some tokens can be drawn, exponentials are taken of those only.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.decoder import Sample, SamplingParams, StepResult, TokenLogprobs

_STRAND = 64
"""Elements of a row that are first looked at together."""
_FEW = 4096
"""Weights that are summed up one after the other."""
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


def sample(logits: Floats, samples: Sequence[Sample]) -> StepResult:
    """Draw one token for each row of logits [len(samples), vocab_size], which are not changed.

    Raises `ValueError` for a grammar mask that allows no token.
    """
    token_ids = []
    scratch = np.empty(
        (2, logits.shape[1]), np.float32
    )  # new memory for each row would cost more than a pass
    for i, each in enumerate(samples):
        ids, row = None, logits[i]
        if not _takes_logits_as_they_are(each):
            ids, row = processed(row, each, scratch[0])
        position = int(row.argmax()) if each.params.temperature == 0 else _draw(row, each, scratch[1])
        token_ids.append(position if ids is None else int(ids[position]))
    logprobs = [
        None
        if each.params.top_logprobs is None
        else token_logprobs(logits[i], token_ids[i], each.params.top_logprobs, scratch[1])
        for i, each in enumerate(samples)
    ]
    return StepResult(token_ids, logprobs)


def token_logprobs(row: Floats, token_id: int, top: int, scratch: Floats | None = None) -> TokenLogprobs:
    """The logprob of a token and those of the `top` likeliest, from unprocessed logits [vocab_size]."""
    maxima = _reduce_strands(np.maximum, row)
    highest = maxima.max()
    weights = np.subtract(row, highest, out=scratch)
    np.exp(weights, out=weights)
    log_total = float(highest) + math.log(weights.sum())  # summed pairwise, so float32 is enough
    likeliest = largest(row, top, maxima)
    return TokenLogprobs(
        float(row[token_id]) - log_total, [(int(i), float(row[i]) - log_total) for i in likeliest]
    )


def candidates(
    row: Floats, params: SamplingParams, scratch: Floats | None = None
) -> tuple[Ids | None, Floats]:
    """The tokens that temperature, top_k, top_p and min_p leave, and their weights, which need not sum to 1.

    Applied in this order, as Hugging Face does: top_p counts the mass of what top_k left. `row` holds
    processed logits [vocab_size]; the temperature is above 0. None stands for all ids. Tokens whose mass is
    lost in rounding may be left out. The weights may be in `scratch`, of the size of a row.
    """
    temperature = max(params.temperature, _LOWEST_TEMPERATURE)
    maxima = _reduce_strands(np.maximum, row)
    highest = maxima.max()
    ids: Ids | None = None
    if 0 < params.top_k < len(row):
        ids = largest(row, params.top_k, maxima)
    else:
        # With top_p all mass counts. The 1 leaves room for rounding: min_p itself is applied at the end.
        depth = _NEGLIGIBLE if params.min_p == 0 or params.top_p < 1 else 1 - math.log(params.min_p)
        if depth * temperature < _NEGLIGIBLE * _NARROW:
            ids = _above(row, maxima, highest - np.float32(depth * temperature))
    weights = np.subtract(row, highest, out=scratch) if ids is None else row[ids] - highest
    if temperature != 1:
        weights *= np.float32(1 / temperature)
    np.exp(weights, out=weights)
    if params.top_p < 1:
        nucleus = (
            _nucleus(row, weights, params.top_p, maxima)
            if ids is None
            else _nucleus(weights, weights, params.top_p, _reduce_strands(np.maximum, weights))
        )
        ids, weights = nucleus if ids is None else ids[nucleus], weights[nucleus]
    if params.min_p > 0:  # the highest weight is 1
        likely = np.flatnonzero(weights >= params.min_p)
        ids, weights = likely if ids is None else ids[likely], weights[likely]
    return ids, weights


def largest(row: Floats, count: int, maxima: Floats | None = None) -> Ids:
    """Indices of the `count` largest elements, largest first, the lower index first where two are equal.

    The count-th largest of the strands' maxima, which may be given, is a floor under the count-th largest
    element, so only elements above it are sorted.
    """
    if count == 0:
        return np.empty(0, np.intp)
    if maxima is None:
        maxima = _reduce_strands(np.maximum, row)
    if count > len(maxima):
        return np.argsort(-row, kind="stable")[:count]
    above = _above(row, maxima, np.partition(maxima, len(maxima) - count)[len(maxima) - count])
    order: Ids = above[np.argsort(-row[above], kind="stable")[:count]]
    return order


def _above(row: Floats, maxima: Floats, floor: np.float32) -> Ids:
    """Indices of the elements not below a floor, in order. Searches only the strands that have some."""
    strands = len(row) // _STRAND
    columns = np.flatnonzero(maxima[:strands] >= floor)
    if 4 * len(columns) >= strands or not len(columns):
        return np.flatnonzero(row >= floor)
    even = strands * _STRAND
    searched = row[:even].reshape(_STRAND, strands).take(columns, axis=1)
    places, found = np.divmod(np.flatnonzero(searched >= floor), len(columns))
    above = places * strands + columns[found]  # in the order of the row, because places are
    if even < len(row):
        above = np.concatenate([above, even + np.flatnonzero(row[even:] >= floor)])
    return above


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


def _draw(row: Floats, each: Sample, scratch: Floats) -> int:
    ids, weights = candidates(row, each.params, scratch[: len(row)])
    position = _at(weights, uniform(each.params.seed, len(each.output_ids)))
    return position if ids is None else int(ids[position])


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


def _nucleus(keys: Floats, weights: Floats, share: float, maxima: Floats) -> Ids:
    """Indices of the fewest weights that make up `share` of their sum: the largest ones.

    `keys` order as the weights do; `maxima` are those of their strands. Most nuclei are among the first few.
    For the others the values alone are sorted, which vector instructions do much faster than to sort places,
    and the smallest one that is needed is the floor.
    """
    total = float(weights.sum())
    mass = share * total
    for count in _SMALL_NUCLEI:
        if count < len(maxima):
            first = largest(keys, count, maxima)
            reached = np.cumsum(weights[first], dtype=np.float64)
            if reached[-1] >= mass:
                return first[: np.searchsorted(reached, mass) + 1]
    # All weights below this floor together are less than the rest that is left out.
    large = np.flatnonzero(weights >= (1 - share) * total / len(weights))
    descending = np.sort(weights[large])[::-1]
    size = min(int(np.searchsorted(np.cumsum(descending, dtype=np.float64), mass)), len(large) - 1) + 1
    inside = large[weights[large] >= descending[size - 1]]
    equal = np.flatnonzero(weights[inside] == descending[size - 1])
    kept: Ids = np.delete(inside, equal[len(equal) - (len(inside) - size) :])  # the first ones of the equal
    return kept


def _at(weights: Floats, fraction: float) -> int:
    """The index where the running sum of weights first exceeds `fraction` of their sum; its weight is not 0.

    The inverse of the distribution function. Where there are many weights they are in the order of their
    strands: looks up the strand first, then the place in it.
    """
    if len(weights) <= _FEW:
        reached = np.cumsum(weights, dtype=np.float64)
        target = min(fraction * reached[-1], np.nextafter(reached[-1], 0))
        return int(np.searchsorted(reached, target, side="right"))
    reached = np.cumsum(_reduce_strands(np.add, weights), dtype=np.float64)
    target = min(fraction * reached[-1], np.nextafter(reached[-1], 0))
    strand = int(np.searchsorted(reached, target, side="right"))
    strands = len(weights) // _STRAND
    if strand >= strands:
        return strands * _STRAND + strand - strands
    before = reached[strand - 1] if strand else 0.0
    within = weights[strand : strands * _STRAND : strands]
    place = int(np.searchsorted(np.cumsum(within, dtype=np.float64), target - before, side="right"))
    if place == _STRAND:  # rounding: the strand's own sum was a trifle larger
        place = int(np.flatnonzero(within)[-1])
    return strand + place * strands


def _reduce_strands(operation: np.ufunc, row: Floats) -> Floats:
    """`operation` over each strand: every n-th element, where n is the number of strands of 64 in the row.

    The elements left over come after, each as a strand of its own. Strands run across the row because columns
    are what NumPy reduces with vector instructions.
    """
    strands = len(row) // _STRAND
    even = strands * _STRAND
    reduced: Floats = operation.reduce(row[:even].reshape(_STRAND, strands), axis=0)
    return np.concatenate([reduced, row[even:]])
