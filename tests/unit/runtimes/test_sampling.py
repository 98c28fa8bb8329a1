"""The sampler against plain definitions in double precision, written for clarity instead of speed."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from carpool.runtimes.candidates import drawn_within
from carpool.runtimes.decoder import Sample, SamplingParams
from carpool.runtimes.half import Logits, numbers
from carpool.runtimes.logits_processing import process
from carpool.runtimes.mask import Mask, mask_of
from carpool.runtimes.openvino.strand_statistics import GraphStatistics
from carpool.runtimes.rejection import draw_and_test
from carpool.runtimes.sampling import sample, token_logprobs, uniform
from carpool.runtimes.selection import Strands, above, look, ranked, strand_statistics, whole_strands
from tests.unit.runtimes.halves import halved

VOCAB_SIZES = st.sampled_from([1, 2, 63, 64, 65, 1500])
Floats = NDArray[np.float32]


@st.composite
def rows(draw: st.DrawFn, sizes: st.SearchStrategy[int] = VOCAB_SIZES) -> Floats:
    """Logits, sometimes with many equal ones."""
    size = draw(sizes)
    if draw(st.booleans()):
        return draw(arrays(np.float32, size, elements=st.sampled_from([-2.0, 0.0, 1.5])))
    return np.random.default_rng(draw(st.integers(0, 1000))).normal(0, 3, size).astype(np.float32)


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 80, 1000]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)


def naive_distribution(row: Floats, params: SamplingParams, more: int = 0) -> dict[int, float]:
    """Token probabilities after temperature, top_k, top_p, min_p, one after the other, the likeliest first.

    `more`: tokens that top_p is to leave in addition.
    """
    weights = np.exp((row.astype(np.float64) - row.max()) / params.temperature)
    tokens = sorted(range(len(row)), key=lambda i: (-row[i], i))
    if params.top_k:
        tokens = tokens[: params.top_k]
    total = math.fsum(weights[i] for i in tokens)
    kept: list[int] = []
    mass = 0.0
    for token in tokens:
        # A hair's breadth for sums in other orders; the strategies' values do not come closer by chance.
        if not kept or params.top_p == 1 or mass < params.top_p * total * (1 - 1e-6):
            kept.append(token)
            mass += weights[token]
    if params.top_p < 1:
        kept = tokens[: max(len(kept) + more, 1)]
    kept = [i for i in kept if weights[i] >= params.min_p * weights.max()]
    total = math.fsum(weights[i] for i in kept)
    return {i: weights[i] / total for i in kept}


def reachable(distribution: dict[int, float]) -> set[int]:
    """The tokens whose probability is not lost in float32."""
    return {token for token, probability in distribution.items() if probability > 1e-12}


def strands_of(row: Floats, temperature: float = 1) -> Strands:
    """One row with its statistics."""
    factors = np.array([[1 / temperature]], np.float32)
    return look(whole_strands(row[None]), factors, strand_statistics)[0]


FRACTIONS = np.append(np.arange(200) / 200, np.nextafter(1, 0))


def drawn_at(row: Floats, params: SamplingParams) -> list[int]:
    """The tokens that `FRACTIONS` draw from one row."""
    many = strands_of(row, params.temperature).of([0] * len(FRACTIONS))
    token_ids: list[int] = drawn_within(many, [params] * len(FRACTIONS), FRACTIONS).tolist()
    return token_ids


def may_be_drawn_at(row: Floats, params: SamplingParams, more: int) -> list[set[int]]:
    """The tokens that each of `FRACTIONS` may draw, by the definition, but for rounding."""
    left = naive_distribution(row, params, more)
    tokens, reached = [*left], np.cumsum([*left.values()])
    first = np.searchsorted(reached, FRACTIONS - 1e-5, side="left")
    last = np.searchsorted(reached, FRACTIONS + 1e-5, side="right")
    return [set(tokens[begin : end + 1]) for begin, end in zip(first, last, strict=True)]


@given(rows(), PARAMS)
@settings(deadline=None, max_examples=300)
def test_each_fraction_draws_the_token_of_the_definition(row: Floats, params: SamplingParams) -> None:
    """Those that are left, in the order of their likelihood, of equals the first; each for its share."""
    found = drawn_at(row, params)
    assert any(  # sums in another order may move the nucleus by one token
        all(
            token in allowed for token, allowed in zip(found, may_be_drawn_at(row, params, more), strict=True)
        )
        for more in (0, -1, 1)
    )


def drawn_and_tested(row: Floats, params: SamplingParams) -> tuple[set[int], set[int]]:
    """The tokens that `FRACTIONS` draw from all of a row by their proportions: those told left, others."""
    many = strands_of(row, params.temperature).of([0] * len(FRACTIONS))
    token_ids, are_left = draw_and_test(many, [params] * len(FRACTIONS), FRACTIONS)
    by_id = np.exp((row.astype(np.float64) - row.max()) / params.temperature).cumsum()
    reached = np.append(0, by_id / by_id[-1])
    assert (reached[token_ids] <= FRACTIONS + 1e-5).all()
    assert (reached[token_ids + 1] >= FRACTIONS - 1e-5).all()
    return set(token_ids[are_left].tolist()), set(token_ids[~are_left].tolist())


@given(rows(), st.floats(0.5, 0.999), st.sampled_from([0.3, 1.0, 2.0]))
@settings(deadline=None, max_examples=300)
def test_a_draw_from_all_tokens_is_told_to_be_in_the_nucleus_or_not(
    row: Floats, top_p: float, temperature: float
) -> None:
    params = SamplingParams(temperature=temperature, top_p=top_p)
    told, not_told = drawn_and_tested(row, params)
    fewer, more = (set(naive_distribution(row, params, by)) for by in (-1, 1))  # sums in another order
    assert told <= more
    assert not not_told & fewer


@given(rows(), st.sampled_from([1, 5, 20, 63, 64, 65, 128, 1000, 2000]), st.sampled_from([0.3, 1.0, 2.0]))
@settings(deadline=None, max_examples=300)
def test_a_draw_from_all_tokens_is_told_to_be_among_the_top_k_or_not(
    row: Floats, top_k: int, temperature: float
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k)
    told, not_told = drawn_and_tested(row, params)
    left = set(naive_distribution(row, params))
    assert told <= left
    assert not not_told & left


@pytest.mark.parametrize("kind", ["float32", "bf16"])
@pytest.mark.parametrize("params", [SamplingParams(seed=11, top_p=0.7), SamplingParams(seed=11, top_k=20)])
def test_a_rejected_draw_is_repeated_among_what_is_left_with_a_second_number(
    params: SamplingParams, kind: str
) -> None:
    row = np.random.default_rng(8).normal(0, 3, 300).astype(np.float32)
    logits: Logits = np.tile(row, (400, 1))
    if kind == "bf16":
        logits = halved(np.tile(row, (400, 1)))
        row = numbers(logits)[0]
    many = strands_of(row).of([0] * 400)
    first = uniform([11] * 400, range(400))
    token_ids, are_left = draw_and_test(many, [params] * 400, first)
    assert 60 < np.count_nonzero(~are_left) < 180
    second = uniform([11] * 400, range(-1, -401, -1))
    again = drawn_within(many, [params] * 400, second)
    drawn = sample(logits, [Sample(i, params, (), [0] * i) for i in range(400)]).token_ids
    assert drawn == np.where(are_left, token_ids, again).tolist()
    counts, expected = Counter(drawn), naive_distribution(row, params)
    chi_square = sum((counts[i] - 400 * p) ** 2 / (400 * p) for i, p in expected.items())
    assert chi_square < len(expected) - 1 + 5 * math.sqrt(2 * (len(expected) - 1))


@given(rows(), st.sampled_from([0, 1, 3, 64, 600]))
@settings(deadline=None)
def test_above_the_floor_of_a_rank_are_at_least_as_many(row: Floats, count: int) -> None:
    strands = strands_of(row)
    [floor] = floors = ranked(strands.maxima, [count])
    found = above(strands, floors)
    expected = np.flatnonzero(row >= floor)
    assert len(expected) >= min(count, len(row))
    assert found.ids.tolist() == expected.tolist()
    np.testing.assert_array_equal(found.elements, row[expected])


def draws(row: Floats, params: SamplingParams, count: int) -> Counter[int]:
    """Tokens drawn at `count` indices of one stream."""
    logits = np.tile(row, (count, 1))
    samples = [Sample(0, params, (), [0] * index) for index in range(count)]
    return Counter(sample(logits, samples).token_ids)


def test_top_p_counts_the_mass_of_what_top_k_left() -> None:
    row = np.linspace(2, 0, 300).astype(np.float32)
    left = naive_distribution(row, SamplingParams(top_k=25, top_p=0.7))
    assert len(left) < 20
    assert set(draws(row, SamplingParams(top_k=25, top_p=0.7), 400)) == set(left)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=5),
        SamplingParams(seed=6, temperature=0.7),
        SamplingParams(seed=7, top_k=3),
        SamplingParams(seed=8, top_p=0.8),
        SamplingParams(seed=9, min_p=0.1),
    ],
    ids=str,
)
def test_draws_follow_the_distribution(params: SamplingParams) -> None:
    row = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, *[-2.0] * 100], np.float32)
    counts, expected = draws(row, params, 2000), naive_distribution(row, params)
    assert set(counts) <= set(expected)
    chi_square = sum((counts[i] - 2000 * p) ** 2 / (2000 * p) for i, p in expected.items())
    degrees = len(expected) - 1
    assert chi_square < degrees + 5 * math.sqrt(2 * degrees)


@given(
    st.lists(st.tuples(rows(st.just(400)), PARAMS), min_size=1, max_size=6),
    st.integers(0, 2**64),
)
@settings(deadline=None, max_examples=50)
def test_a_draw_does_not_depend_on_its_companions(
    batch: Sequence[tuple[Floats, SamplingParams]], seed: int
) -> None:
    samples = [
        Sample(i, SamplingParams(params.temperature, params.top_k, params.top_p, seed=seed + i), (), [1] * i)
        for i, (_, params) in enumerate(batch)
    ]
    together = sample(np.stack([row for row, _ in batch]), samples).token_ids
    alone = [sample(row[None], [each]).token_ids[0] for (row, _), each in zip(batch, samples, strict=True)]
    assert list(together) == alone


def test_greedy_takes_the_first_of_the_highest() -> None:
    logits = np.array([[1, 3, 3], [5, 0, 5]], np.float32)
    assert sample(logits, [Sample(0, SamplingParams(temperature=0), (), ())] * 2).token_ids == [1, 0]


def test_a_tiny_temperature_is_greedy() -> None:
    row = np.array([0.0, 0.1, 0.05], np.float32)
    assert set(draws(row, SamplingParams(temperature=1e-9), 50)) == {1}


def processed(rows: Logits, samples: Sequence[Sample]) -> Floats:
    """What is left of rows, those apart put back."""
    rows = whole_strands(rows.copy())
    apart = process(rows, dict(enumerate(samples)))
    left = numbers(rows).copy()
    for row, ids, elements, are_all in zip(left, *apart, strict=True):
        if are_all:
            row[:] = -np.inf
        there = np.flatnonzero(elements > -np.inf)
        assert len({*ids[there].tolist()}) == len(there), "a token stands apart once"
        assert (row[ids[there]] == -np.inf).all(), "and nowhere else"
        row[ids[there]] = elements[there]
    return left


def naively_processed(row: Floats, each: Sample) -> Floats:
    """Penalties, bias, grammar and bans, one token after the other."""
    left, params = row.copy(), each.params
    for i in {*each.prompt_ids, *each.output_ids}:
        left[i] = left[i] / params.repetition_penalty if left[i] > 0 else left[i] * params.repetition_penalty
    for i, times in Counter(each.output_ids).items():
        left[i] -= params.frequency_penalty * times + params.presence_penalty
    for i, bias in params.logit_bias.items():
        left[i] += bias
    mask = None if each.allowed is None else each.allowed()
    if mask is not None:
        listed = {*mask.ids.tolist()}
        for i in range(len(row)):
            if (i in listed) is not mask.lists_allowed:
                left[i] = -np.inf
    banned = left.copy()
    banned[list(each.banned_ids)] = -np.inf
    return left if banned.max() == -np.inf else banned


def test_penalties_are_those_of_their_papers() -> None:
    row = np.array([2.0, -2.0, 1.0, 4.0, 0.0], np.float32)
    params = SamplingParams(repetition_penalty=2, frequency_penalty=0.5, presence_penalty=0.25)
    [found] = processed(row[None], [Sample(0, params, [0, 1, 0], [3, 3])])
    np.testing.assert_allclose(found[:5], [1.0, -4.0, 1.0, 4 / 2 - 2 * 0.5 - 0.25, 0.0])


def test_bias_bans_and_grammar() -> None:
    row = np.zeros(40, np.float32)
    params = SamplingParams(temperature=0, logit_bias={3: 2.0, 39: 5.0, 7: 100.0})
    each = Sample(0, params, (), (), banned_ids=[39], allowed=grammar_of([0, 1, 3, 39], 40))
    [found] = processed(row[None], [each])
    assert np.flatnonzero(np.isfinite(found)).tolist() == [0, 1, 3]
    assert sample(row[None], [each]).token_ids == [3]


@st.composite
def processing(draw: st.DrawFn, size: int) -> Sample:
    """A sample with any of what changes logits."""
    ids = st.lists(st.integers(0, size - 1), max_size=12)
    kept = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=20)))
    masks = [None, grammar_of(kept, size), grammar_of(sorted({*range(size)} - {*kept[1:]}), size)]
    params = SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.7, 1.0])),
        top_k=draw(st.sampled_from([0, 7, 25])),
        top_p=draw(st.sampled_from([0.45678, 0.85, 1.0])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.25, 0.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.5])),
        presence_penalty=draw(st.sampled_from([0.0, -0.75])),
        logit_bias=draw(
            st.dictionaries(st.integers(0, size - 1), st.sampled_from([-100.0, 1.5]), max_size=4)
        ),
        top_logprobs=draw(st.sampled_from([None, 0, 3])),
        seed=draw(st.integers(0, 99)),
    )
    banned = draw(st.one_of(ids, st.just(kept)))
    return Sample(0, params, draw(ids), draw(ids), banned, draw(st.sampled_from(masks)))


LARGE = 6000  # more than the tokens that stand apart when they are all that is left


@given(st.lists(st.tuples(rows(st.just(LARGE)), processing(LARGE)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_processing_leaves_what_it_leaves_one_token_after_the_other(
    batch: Sequence[tuple[Floats, Sample]],
) -> None:
    wide = np.stack([row for row, _ in batch])
    for logits in (wide, halved(wide)):
        found = processed(logits, [each for _, each in batch])
        for row, of_row, (_, each) in zip(numbers(logits), found, batch, strict=True):
            np.testing.assert_allclose(of_row[:LARGE], naively_processed(row, each), rtol=1e-6, atol=1e-6)
            assert (of_row[LARGE:] == -np.inf).all()


@given(st.lists(st.tuples(rows(st.just(LARGE)), processing(LARGE)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_a_draw_depends_neither_on_its_companions_nor_on_the_type_of_the_logits(
    batch: Sequence[tuple[Floats, Sample]],
) -> None:
    halves = halved(np.stack([row for row, _ in batch]))
    samples = [each for _, each in batch]
    together = sample(numbers(halves), samples)
    assert sample(halves.copy(), samples) == together
    for i, each in enumerate(samples):
        alone = sample(halves[i : i + 1].copy(), [each])
        assert alone.token_ids[0] == together.token_ids[i]
        assert alone.logprobs[0] == together.logprobs[i]


@given(rows(st.just(LARGE)), processing(LARGE))
@settings(deadline=None, max_examples=100)
def test_what_stands_apart_is_drawn_as_if_it_were_in_its_row(row: Floats, each: Sample) -> None:
    """Of equals the first too, wherever they are. With `min_p` by likelihood, not by place."""
    each = replace(each, params=replace(each.params, min_p=1e-9, top_logprobs=None))
    [left] = processed(row[None], [each])
    asked = each.params
    bare = SamplingParams(asked.temperature, asked.top_k, asked.top_p, asked.min_p, seed=asked.seed)
    expected = sample(left[None, :LARGE].copy(), [Sample(0, bare, (), each.output_ids)])
    assert sample(row[None].copy(), [each]) == expected


def test_bans_yield_where_nothing_else_is_allowed() -> None:
    each = Sample(0, SamplingParams(), (), (), banned_ids=[2], allowed=grammar_of([2], 9))
    assert sample(np.zeros((1, 9), np.float32), [each]).token_ids == [2]


def test_a_grammar_that_allows_nothing_is_an_error() -> None:
    each = Sample(0, SamplingParams(), (), (), allowed=grammar_of([], 9))
    with pytest.raises(ValueError, match="allows no token"):
        sample(np.zeros((1, 9), np.float32), [each])


@given(rows(), st.sampled_from([0, 1, 5]))
@settings(deadline=None)
def test_logprobs_are_those_of_the_unprocessed_logits(row: Floats, top: int) -> None:
    expected = row - row.max() - np.log(np.exp(row.astype(np.float64) - row.max()).sum())
    [found] = token_logprobs(strands_of(row), [len(row) - 1], [top])
    assert found.logprob == pytest.approx(expected[-1], abs=1e-4)
    assert [token for token, _ in found.top] == np.argsort(-row, kind="stable")[:top].tolist()
    assert all(logprob == pytest.approx(expected[token], abs=1e-4) for token, logprob in found.top)


def test_logprobs_come_only_where_asked_and_before_temperature() -> None:
    row = np.array([[0.0, 2.0]], np.float32).repeat(2, axis=0)
    params = SamplingParams(temperature=0, logit_bias={0: 50.0}, top_logprobs=1)
    result = sample(row, [Sample(0, SamplingParams(), (), ()), Sample(1, params, (), ())])
    assert result.logprobs[0] is None
    assert result.token_ids[1] == 0
    found = result.logprobs[1]
    assert found is not None
    assert found.logprob == pytest.approx(-math.log(1 + math.exp(2)), abs=1e-6)
    [(token_id, logprob)] = found.top
    assert token_id == 1
    assert logprob == pytest.approx(-math.log(1 + math.exp(-2)), abs=1e-6)


def test_uniform_is_splitmix64() -> None:
    """The first output of the published generator for state 0 is 0xE220A8397B1DCDAF."""
    from carpool.runtimes import sampling

    assert sampling._mix(np.zeros(1, np.uint64)) == [0xE220A8397B1DCDAF]
    values = np.array([uniform([seed] * 100, range(100)) for seed in range(100)])
    assert uniform([3 - 2**64], [-5]) == uniform([3], [2**64 - 5]) != uniform([3], [4])
    assert len(np.unique(values)) == values.size
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.05


def grammar_of(ids: Sequence[int], size: int) -> Callable[[], Mask]:
    """A grammar that allows these."""
    bits = np.zeros(-(-size // 32) * 32, np.uint8)
    bits[list(ids)] = 1
    mask = mask_of(np.packbits(bits, bitorder="little").tobytes())
    return lambda: mask


@given(rows(st.just(1500)), PARAMS, st.sets(st.integers(0, 1499), min_size=1), st.integers(0, 100))
@settings(deadline=None)
def test_a_grammar_leaves_the_allowed_tokens_with_their_proportions(
    row: Floats, params: SamplingParams, allowed: set[int], seed: int
) -> None:
    """However many tokens a mask allows, only those are drawn, and only those that the parameters leave."""
    for keep in (allowed, set(range(1500)) - allowed):
        masked = np.full_like(row, -np.inf)
        masked[list(keep)] = row[list(keep)]
        each = Sample(0, replace(params, seed=seed), (), (), (), grammar_of(sorted(keep), 1500))
        [token_id] = sample(row[None], [each]).token_ids
        assert token_id in keep
        rank = sorted(keep, key=lambda i: (-row[i], i)).index(token_id)
        # One more than the definition leaves, for sums in another order.
        assert rank <= len(reachable(naive_distribution(masked, params)))


@pytest.mark.parametrize("keep", [[3, 8], list(range(90))], ids=["few", "most"])
def test_draws_under_a_grammar_follow_its_distribution(keep: list[int]) -> None:
    row = np.random.default_rng(1).normal(0, 1, 100).astype(np.float32)
    each = [Sample(0, SamplingParams(seed=3), (), [0] * i, (), grammar_of(keep, 100)) for i in range(2000)]
    counts = Counter(sample(np.tile(row, (2000, 1)), each).token_ids)
    masked = np.full_like(row, -np.inf)
    masked[keep] = row[keep]
    expected = naive_distribution(masked, SamplingParams())
    assert set(counts) <= set(keep)
    chi_square = sum((counts[i] - 2000 * expected[i]) ** 2 / (2000 * expected[i]) for i in keep)
    assert chi_square < len(keep) - 1 + 5 * math.sqrt(2 * (len(keep) - 1))


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_wide_nucleus_is_found_too(share: float) -> None:
    """Thousands of tokens, some of them equal: far beyond the nuclei that are looked for first."""
    row = np.round(np.random.default_rng(2).normal(0, 0.5, 20_000), 2).astype(np.float32)
    params = SamplingParams(top_p=share)
    left = naive_distribution(row, params)
    assert len(left) > 1000
    place = {token: i for i, token in enumerate(left)}
    places = [place[token] for token in drawn_at(row, params)[:-1]]
    reached = np.cumsum([*left.values()])[places]
    np.testing.assert_allclose(reached, FRACTIONS[:-1], atol=2e-3)


def test_rows_with_many_candidates_and_with_few_are_drawn_from_together() -> None:
    random = np.random.default_rng(4)
    rows = np.stack([random.normal(0, scale, 3000) for scale in (0.1, 4, 0.1, 4, 1)]).astype(np.float32)
    each = [Sample(i, SamplingParams(top_p=0.9, seed=i), (), ()) for i in range(5)]
    alone = [sample(rows[i : i + 1], each[i : i + 1]).token_ids[0] for i in range(5)]
    assert sample(rows, each).token_ids == alone


@pytest.mark.parametrize("limits", [{}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_the_smallest_and_the_largest_repetition_penalty_leave_numbers(limits: dict[str, float]) -> None:
    logits = np.arange(-50, 50, dtype=np.float32)[None]
    smallest = SamplingParams(repetition_penalty=1e-40, **limits)  # type: ignore[arg-type]
    assert sample(logits.copy(), [Sample(0, smallest, [60, 70], [])]).token_ids == [70]
    largest = SamplingParams(repetition_penalty=1e39, **limits)  # type: ignore[arg-type]
    drawn = sample(logits, [Sample(0, largest, [*range(10, 50), *range(60, 100)], [])])
    assert drawn.token_ids[0] in range(51, 60)
    assert drawn.unusable == []


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("in_graph", [False, True], ids=["NumPy", "graph"])
@pytest.mark.parametrize("places", [slice(7, 8), slice(None)], ids=["one", "all"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    "limits",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "top_logprobs": 3},
        {},
        {"top_k": 5},
        {"top_p": 0.9, "top_logprobs": 3},
        {"min_p": 0.1},
        {"top_p": 0.9, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_a_row_that_is_no_numbers_harms_no_other(
    limits: dict[str, Any], number: float, places: slice, in_graph: bool
) -> None:
    statistics = GraphStatistics(500, ov.Type.f32, num_threads=1) if in_graph else strand_statistics
    sound = np.random.default_rng(3).normal(0, 2, (4, 500)).astype(np.float32)
    rows = sound.copy()
    rows[1, places] = number
    samples = [Sample(row, SamplingParams(seed=row, **limits), [1, 2], [3]) for row in range(4)]
    expected, found = sample(sound, samples, statistics), sample(rows, samples, statistics)
    assert list(found.unusable) == ([1] if number != -np.inf or places == slice(None) else [])
    for row in (0, 2, 3):
        assert found.token_ids[row] == expected.token_ids[row]
        assert found.logprobs[row] == expected.logprobs[row]


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("number", [np.nan, np.inf], ids=str)
def test_a_logprob_is_a_number_though_what_is_none_was_not_allowed(number: float, temperature: float) -> None:
    logits = np.random.default_rng(3).normal(0, 2, (2, 500)).astype(np.float32)
    logits[0, 7] = number
    params = SamplingParams(temperature=temperature, top_logprobs=2)
    found = sample(logits, [Sample(row, params, [1], [], banned_ids=[7]) for row in range(2)])
    assert list(found.unusable) == [0]
    assert found.logprobs[0] is None
    assert found.logprobs[1] is not None
    assert np.isfinite(found.logprobs[1].logprob)


@pytest.mark.parametrize("params", [{"top_k": 500}, {"top_k": 2}, {"min_p": 0.01}, {"top_p": 0.5}, {}])
def test_a_grammar_holds_at_any_temperature(params: dict[str, float]) -> None:
    mask = grammar_of([0, 2], 1500)
    logits = np.random.default_rng(5).normal(size=(16, 1500)).astype(np.float32)
    for temperature in (1.0, 1e37, 1e38):
        chosen = SamplingParams(temperature=temperature, **params)  # type: ignore[arg-type]
        samples = [Sample(i, replace(chosen, seed=i), (), (), allowed=mask) for i in range(len(logits))]
        assert set(sample(logits.copy(), samples, strand_statistics).token_ids) <= {0, 2}
