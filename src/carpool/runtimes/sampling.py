"""Drawing the next tokens from logits on the host.

Every draw is a function of one row of logits, its sample and the sample's own random stream, so it does not
depend on what else is in the batch. Rows are processed one by one: a row of 50,000 logits stays in the core's
cache through all passes over it, and no pass sorts the vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carpool.runtimes.decoder import Sample, SamplingParams, StepResult, TokenLogprobs

_STRAND = 64
"""Elements of a row that are first looked at together."""
_SMALL_NUCLEUS = 256
"""Tokens the search for a top_p nucleus starts with."""
_LOWEST_TEMPERATURE = 1e-5
"""Below it the likeliest token has all the mass in float32 anyway."""

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]


def sample(logits: Floats, samples: Sequence[Sample]) -> StepResult:
    """Draw one token for each row of logits [len(samples), vocab_size], which are not changed.

    Raises `ValueError` for a grammar mask that allows no token.
    """
    token_ids: list[int] = logits.argmax(axis=1).tolist()
    for i, each in enumerate(samples):
        as_they_are = _takes_logits_as_they_are(each)
        if each.params.temperature > 0 or not as_they_are:
            token_ids[i] = _draw(logits[i] if as_they_are else processed(logits[i], each), each)
    logprobs = [
        None
        if each.params.top_logprobs is None
        else token_logprobs(logits[i], token_ids[i], each.params.top_logprobs)
        for i, each in enumerate(samples)
    ]
    return StepResult(token_ids, logprobs)


def token_logprobs(row: Floats, token_id: int, top: int) -> TokenLogprobs:
    """The logprob of a token and those of the `top` likeliest, from unprocessed logits [vocab_size]."""
    highest = row.max()
    log_total = float(highest) + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))
    likeliest = largest(row, top)
    return TokenLogprobs(
        float(row[token_id]) - log_total, [(int(i), float(row[i]) - log_total) for i in likeliest]
    )


def candidates(row: Floats, params: SamplingParams) -> tuple[Ids | None, Floats]:
    """The tokens that temperature, top_k, top_p and min_p leave, and their weights, which need not sum to 1.

    Applied in this order, as Hugging Face does: top_p counts the mass of what top_k left. `row` holds
    processed logits [vocab_size]; the temperature is above 0. None stands for all ids.
    """
    weights = row * np.float32(1 / max(params.temperature, _LOWEST_TEMPERATURE))
    weights -= weights.max()
    np.exp(weights, out=weights)
    ids: Ids | None = None
    if 0 < params.top_k < len(row):
        ids = largest(weights, params.top_k)
        weights = weights[ids]
    if params.top_p < 1:
        nucleus = _nucleus(weights, params.top_p)
        ids, weights = nucleus if ids is None else ids[nucleus], weights[nucleus]
    if params.min_p > 0:  # the highest weight is 1
        likely = np.flatnonzero(weights >= params.min_p)
        ids, weights = likely if ids is None else ids[likely], weights[likely]
    return ids, weights


def largest(row: Floats, count: int) -> Ids:
    """Indices of the `count` largest elements, largest first, the lower index first where two are equal.

    The count-th largest of the strands' maxima is a floor under the count-th largest element, so only
    elements above it are sorted.
    """
    if count == 0:
        return np.empty(0, np.intp)
    maxima = _reduce_strands(np.maximum, row)
    if count <= len(maxima):
        floor = np.partition(maxima, len(maxima) - count)[len(maxima) - count]
        above = np.flatnonzero(row >= floor)
    else:
        above = np.arange(len(row))
    order: Ids = above[np.argsort(-row[above], kind="stable")[:count]]
    return order


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


def _draw(row: Floats, each: Sample) -> int:
    if each.params.temperature == 0:
        return int(row.argmax())
    ids, weights = candidates(row, each.params)
    position = _at(weights, uniform(each.params.seed, len(each.output_ids)))
    return position if ids is None else int(ids[position])


def processed(row: Floats, each: Sample) -> Floats:
    """A copy of a row [vocab_size] after penalties, bias, bans and grammar.

    Repetition: Keskar et al., https://arxiv.org/abs/1909.05858, over prompt and output. Frequency and
    presence: OpenAI's, over the output. Bans yield where they would leave nothing. Raises `ValueError` for a
    grammar mask that allows no token.
    """
    row = row.copy()
    params = each.params
    if params.repetition_penalty != 1:
        seen = np.unique(np.array([*each.prompt_ids, *each.output_ids], np.intp))
        logits = row[seen]
        row[seen] = np.where(
            logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty
        )
    if each.output_ids and (params.frequency_penalty or params.presence_penalty):
        drawn, counts = np.unique(np.array(each.output_ids, np.intp), return_counts=True)
        row[drawn] -= (params.frequency_penalty * counts + params.presence_penalty).astype(np.float32)
    if params.logit_bias:
        row[np.array([*params.logit_bias], np.intp)] += np.array([*params.logit_bias.values()], np.float32)
    if each.allowed is not None:
        bits = np.unpackbits(each.allowed.view(np.uint8), bitorder="little")[: len(row)]
        row[bits == 0] = -np.inf
        if row.max() == -np.inf:
            raise ValueError("the grammar allows no token")
    if each.banned_ids:
        banned = np.array(each.banned_ids, np.intp)
        logits = row[banned]
        row[banned] = -np.inf
        if row.max() == -np.inf:
            row[banned] = logits
    return row


def _nucleus(weights: Floats, share: float) -> Ids:
    """Indices of the fewest weights that make up `share` of their sum: the largest ones.

    Most nuclei are among the first few. For the others, weights are counted into bins by the upper bits of
    their bit patterns, which order as the numbers do, and only the bin where the nucleus ends is sorted.
    """
    total = float(weights.sum())
    mass = share * total
    above = np.empty(0, np.intp)
    edge = largest(weights, _SMALL_NUCLEUS)
    if weights[edge].sum() < mass:
        # All weights below this floor together are less than the rest that is left out.
        large = np.flatnonzero(weights >= (1 - share) * total / len(weights))
        bins = weights[large].view(np.int32) >> 19
        from_top = np.cumsum(np.bincount(bins, weights[large])[::-1])
        last = len(from_top) - 1 - min(int(np.searchsorted(from_top, mass)), len(from_top) - 1)
        above, edge = large[bins > last], large[bins == last]
        edge = edge[np.argsort(-weights[edge], kind="stable")]
    reached = float(weights[above].sum()) + np.cumsum(weights[edge], dtype=np.float64)
    return np.concatenate([above, edge[: np.searchsorted(reached, mass) + 1]])


def _at(weights: Floats, fraction: float) -> int:
    """The index where the running sum of weights first exceeds `fraction` of their sum; its weight is not 0.

    The inverse of the distribution function, with the weights in the order of their strands: looks up the
    strand first, then the place in it.
    """
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
