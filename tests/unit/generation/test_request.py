"""What is refused before it waits."""

import math
from typing import Any

import pytest

from carpool.errors import ContextLengthExceeded, InvalidRequest
from carpool.generation import GenerationRequest
from carpool.generation.request import check
from carpool.runtimes.decoder import DecoderSpec, SamplingParams

SPEC = DecoderSpec(vocab_size=50, context_length=100, block_size=4, num_blocks=1000)
SMALL = DecoderSpec(vocab_size=50, context_length=100, block_size=4, num_blocks=10)


def request(prompt: int = 10, max_tokens: int | None = 5, **fields: Any) -> GenerationRequest:
    return GenerationRequest(request_id=1, prompt_ids=[1] * prompt, max_tokens=max_tokens, **fields)


def test_without_max_tokens_a_request_may_fill_the_context_or_the_memory() -> None:
    assert check(request(10, None), SPEC, 8) == 90
    assert check(request(10, None), SMALL, 8) == 31  # 40 in memory, and one that is never fed back
    assert check(request(10, 5), SPEC, 8) == 5


@pytest.mark.parametrize("prompt", [100, 101, 5000])
def test_a_prompt_that_leaves_no_room_names_both_numbers(prompt: int) -> None:
    with pytest.raises(ContextLengthExceeded, match=rf"100 tokens.* {prompt} in the prompt") as caught:
        check(request(prompt, None), SPEC, 8)
    assert caught.value.param == "prompt"


def test_prompt_and_max_tokens_beyond_the_context_name_the_numbers() -> None:
    assert check(request(60, 40), SPEC, 8) == 40
    with pytest.raises(
        ContextLengthExceeded, match=r"100 tokens.* 60 in the prompt and 41 for the completion, 101 in all"
    ) as caught:
        check(request(60, 41), SPEC, 8)
    assert caught.value.param == "max_tokens"


def test_what_can_never_fit_the_memory_is_refused() -> None:
    assert check(request(10, 31), SMALL, 8) == 31
    with pytest.raises(InvalidRequest, match=r"KV memory for 41 tokens; there is room for 40"):
        check(request(10, 32), SMALL, 8)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 0}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 6}, "min_tokens"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"stop_token_ids": frozenset({50})}, "stop_token_ids"),
        ({"end_token_ids": frozenset({-1})}, "stop_token_ids"),
    ],
)
def test_values_out_of_range(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(request(**fields), SPEC, 8)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("frequency_penalty", math.inf),
        ("presence_penalty", math.nan),
        ("logit_bias", {50: 1.0}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: math.nan}),
        ("top_logprobs", -1),
        ("top_logprobs", 51),
    ],
)
def test_sampling_parameters_that_no_step_could_run(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(request(params=SamplingParams(**{name: value})), SPEC, 8)  # type: ignore[arg-type]
    assert caught.value.param == name


def test_token_ids_outside_the_vocabulary() -> None:
    with pytest.raises(InvalidRequest, match="0 to 49"):
        check(GenerationRequest(request_id=1, prompt_ids=[1, 50]), SPEC, 8)
