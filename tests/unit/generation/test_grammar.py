"""Sequences that follow a grammar, among others that do not."""

import re
from typing import Any

import pytest

from carpool.errors import InvalidRequest
from carpool.generation import FinishReason, GenerationConfig, GenerationRequest, Grammar, GrammarKind
from carpool.generation.grammar import Matcher
from carpool.runtimes.decoder import SamplingParams
from tests.unit.generation.grammars import END, TOKENIZER, MaskedDecoder, allowed_ids, compiled, regex
from tests.unit.generation.passengers import Trip, trip
from tests.unit.generation.ride import prompt
from tests.unit.generation.simulated_decoder import alone

EXHAUSTING = "(" * 30 + "." + "{1,50})" * 30
"""Compiles at once, and runs out of llguidance's limits after a few tokens."""


def submit(journey: Trip, request_id: int, grammar: Grammar | None, **fields: Any) -> None:
    fields = {"max_tokens": 40, "prompt_ids": prompt(7, salt=request_id), **fields}
    journey.engine.submit(
        GenerationRequest(
            request_id=request_id,
            grammar=grammar,
            end_token_ids=frozenset({END}),
            params=SamplingParams(seed=request_id),
            **fields,
        )
    )


async def text(journey: Trip, request_id: int, index: int = 0) -> tuple[str, FinishReason | None]:
    end = await journey.receiver.end(request_id, index)
    return TOKENIZER.decode(journey.receiver.text(request_id, index)), end.finish_reason


async def test_a_mask_holds_what_may_follow_and_the_end_where_it_may_end() -> None:
    matcher = Matcher(await regex("ab?|c"))
    a, b, c = TOKENIZER.encode("abc")
    assert allowed_ids(matcher) == [a, c]
    matcher.advance(a)
    finished = [matcher.finished]
    assert allowed_ids(matcher) == [b, END]
    matcher.advance(b)
    assert [*finished, matcher.finished] == [False, True]
    assert matcher.error is None


async def test_a_mask_is_computed_once_for_each_position() -> None:
    matcher = Matcher(await regex("ab"))
    first = matcher.mask()
    assert matcher.mask() is first
    matcher.advance(TOKENIZER.encode("a")[0])
    assert allowed_ids(matcher) == TOKENIZER.encode("b")
    matcher.advance(TOKENIZER.encode("b")[0])
    assert matcher.finished
    assert matcher.mask() is None


class AllowsNothing:
    """A matcher of llguidance that leaves a mask empty and knows of no error."""

    def unsafe_compute_mask_ptr(self, _address: int, _size: int) -> None:
        pass

    def is_error(self) -> bool:
        return False


async def test_a_matcher_that_failed_or_allows_nothing_harms_no_other() -> None:
    failed, stuck, good = [Matcher(await regex(pattern)) for pattern in (EXHAUSTING, "ab?", "ab?")]
    while failed.error is None:
        failed.mask()
        failed.advance(TOKENIZER.encode("a")[0])
    reason = failed.error
    stuck._matcher = AllowsNothing()  # type: ignore[assignment]
    assert [failed.mask(), stuck.mask()] == [None, None]
    assert allowed_ids(good) == TOKENIZER.encode("a")
    assert (failed.error, stuck.error, good.error) == (reason, "no token can follow", None)


async def test_a_special_token_is_no_text() -> None:
    matcher = Matcher(await regex(r"<\|end\|>"))
    for token_id in TOKENIZER.encode(TOKENIZER.guard("<|end|>")):
        assert allowed_ids(matcher) == [token_id]
        matcher.advance(token_id)
    assert matcher.finished


async def test_a_choice_ends_with_its_last_token() -> None:
    decoder = MaskedDecoder()
    grammar = await regex("yes|no")
    async with trip(decoder) as journey:
        submit(journey, 1, grammar)
        answer, reason = await text(journey, 1)
    assert answer in ("yes", "no")
    assert reason is FinishReason.STOP
    assert len(decoder.batches) == len(answer)
    last = journey.receiver.outputs[1, 0][-1]
    assert last.token_ids
    assert last.usage is not None
    assert last.usage.completion_tokens == len(answer)


async def test_the_choices_of_a_request_follow_the_grammar_each_for_itself() -> None:
    grammar = await regex("(red|green|blue)( (red|green|blue)){3}")
    async with trip(MaskedDecoder()) as journey:
        submit(journey, 1, grammar, n=8)
        texts = [(await text(journey, 1, index))[0] for index in range(8)]
    assert all(re.fullmatch("(red|green|blue)( (red|green|blue)){3}", each) for each in texts)
    assert len(set(texts)) > 1


async def test_strangers_in_the_batch_are_not_constrained() -> None:
    grammar = await regex("[01]{12}")
    async with trip(MaskedDecoder()) as journey:
        for request_id in range(12):
            submit(journey, request_id, grammar if request_id % 2 else None, max_tokens=12)
        texts = {request_id: await text(journey, request_id) for request_id in range(12)}
    for request_id, (answer, reason) in texts.items():
        if request_id % 2:
            assert re.fullmatch("[01]{12}", answer)
            assert reason is FinishReason.STOP
        else:
            expected = alone(prompt(7, salt=request_id), 12, SamplingParams(seed=request_id), stop=[END])
            assert journey.receiver.text(request_id) == expected


@pytest.mark.parametrize(
    ("fields", "lengths", "reasons"),
    [
        ({}, {2, 3, 4}, {FinishReason.STOP}),
        ({"min_tokens": 3}, {3, 4}, {FinishReason.STOP}),
        ({"min_tokens": 9}, {4}, {FinishReason.STOP}),  # there is nothing else to draw
        ({"ignore_eos": True}, {4}, {FinishReason.STOP}),
        ({"max_tokens": 2}, {2}, {FinishReason.LENGTH}),
        ({"max_tokens": 4, "ignore_eos": True}, {4}, {FinishReason.STOP}),
    ],
)
async def test_the_end_comes_where_the_grammar_and_the_request_allow_it(
    fields: dict[str, Any], lengths: set[int], reasons: set[FinishReason]
) -> None:
    grammar = await regex("a{2,4}")
    async with trip(MaskedDecoder()) as journey:
        for request_id in range(30):
            submit(journey, request_id, grammar, **fields)
        found = [await text(journey, request_id) for request_id in range(30)]
    assert {len(answer) for answer, _ in found} == lengths
    assert {reason for _, reason in found} == reasons


async def test_a_prefix_of_another_choice_can_be_chosen() -> None:
    grammar = await regex("a|aa|aaa")
    async with trip(MaskedDecoder()) as journey:
        for request_id in range(30):
            submit(journey, request_id, grammar)
        assert {(await text(journey, request_id))[0] for request_id in range(30)} == {"a", "aa", "aaa"}


async def test_preempted_sequences_go_on_where_they_were() -> None:
    pattern = "(ab|cd|ef){15}"
    grammar = await regex(pattern)
    config = GenerationConfig(max_num_seqs=8, max_num_batched_tokens=32, reserve_tokens=2)
    async with trip(MaskedDecoder(num_blocks=24), config) as journey:
        for request_id in range(8):
            submit(journey, request_id, grammar)
        for request_id in range(8):
            answer, reason = await text(journey, request_id)
            assert re.fullmatch(pattern, answer)
            assert reason is FinishReason.STOP
        assert journey.metric("carpool_preemptions_total") > 0


async def test_a_grammar_that_gets_too_complex_ends_its_own_request_only() -> None:
    exhausting, simple = await regex(EXHAUSTING), await regex("[01]{20}")
    async with trip(MaskedDecoder()) as journey:
        submit(journey, 0, exhausting, n=2)
        for request_id in (1, 2, 3):
            submit(journey, request_id, simple)
        for index in (0, 1):
            end = await journey.receiver.end(0, index)
            assert end.finish_reason is FinishReason.ERROR
            assert isinstance(end.error, InvalidRequest)
            assert "too many expressions" in end.error.message
        for request_id in (1, 2, 3):
            assert re.fullmatch("[01]{20}", (await text(journey, request_id))[0])
        assert journey.engine.healthy


async def test_a_schema_is_followed_to_its_end_or_its_length() -> None:
    grammar = await compiled(
        GrammarKind.JSON_SCHEMA,
        '{"type":"object","properties":{"b":{"enum":[1,2]},"a":{"type":"boolean"}},"required":["b","a"],'
        '"additionalProperties":false}',
    )
    whole = re.compile(r'\{\s{0,20}"b"\s{0,20}:\s{0,20}[12]\s{0,20},\s{0,20}"a"\s{0,20}:.*', re.DOTALL)
    async with trip(MaskedDecoder(num_blocks=2048, context_length=400)) as journey:
        for request_id in range(8):
            submit(journey, request_id, grammar, max_tokens=300)
        for request_id in range(8):
            answer, reason = await text(journey, request_id)
            assert reason is FinishReason.STOP
            assert whole.fullmatch(answer)
            assert answer.endswith("}")
