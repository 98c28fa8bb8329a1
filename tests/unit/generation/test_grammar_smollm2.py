"""Structured output of the real model: what ends by itself is valid, what is cut off is a beginning of it."""

import json
import re
from typing import Annotated, Literal

import pydantic_core
import pytest
from pydantic import BaseModel, ConfigDict, Field

from carpool.generation import (
    FinishReason,
    GenerationConfig,
    GenerationRequest,
    GrammarCompiler,
    GrammarKind,
    GrammarSource,
)
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import SamplingParams
from carpool.runtimes.openvino.decoder import OpenVinoDecoder
from tests.unit.generation.passengers import trip

pytestmark = pytest.mark.model

QUESTION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PARAMS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.7, top_p=0.9, seed=1),
    SamplingParams(temperature=1.0, top_k=50, repetition_penalty=1.1, seed=2),
    SamplingParams(temperature=2.0, min_p=0.01, seed=3),
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Person(Strict):
    name: Annotated[str, Field(max_length=20)]
    age: Annotated[int, Field(ge=0, le=150)]
    adult: bool


class Shop(Strict):
    kind: Literal["bakery", "café", 'the "old" one']
    address: Person | None
    prices: Annotated[list[Annotated[float, Field(ge=0, le=9)]], Field(min_length=1, max_length=3)]


class Code(Strict):
    code: Annotated[str, Field(pattern="^[A-Z]{3}-[0-9]{4}$")]
    level: Literal[1, 2, 3]


MODELS: list[type[Strict]] = [Person, Shop, Code]


async def answers(
    decoder: OpenVinoDecoder, tokenizer: Tokenizer, sources: list[GrammarSource], max_tokens: int
) -> list[list[tuple[str, FinishReason | None]]]:
    """For each grammar, what the model says with each of the parameters; all in one batch."""
    compiler = GrammarCompiler(tokenizer, decoder.spec.vocab_size)
    async with trip(decoder, GenerationConfig(max_num_seqs=32)) as journey:
        for number, source in enumerate(sources):
            grammar = await compiler.compile(source)
            question = QUESTION.format(f"Give me an example of this: {source.text}")
            for choice, params in enumerate(PARAMS):
                journey.engine.submit(
                    GenerationRequest(
                        request_id=number * len(PARAMS) + choice,
                        prompt_ids=tokenizer.encode(question, add_special_tokens=False),
                        params=params,
                        max_tokens=max_tokens,
                        end_token_ids=tokenizer.end_ids,
                        grammar=grammar,
                    )
                )
        ends = [await journey.receiver.end(request_id) for request_id in range(len(sources) * len(PARAMS))]
        texts = [tokenizer.decode(journey.receiver.text(end.request_id)) for end in ends]
    found = [(text, end.finish_reason) for text, end in zip(texts, ends, strict=True)]
    return [found[start : start + len(PARAMS)] for start in range(0, len(found), len(PARAMS))]


async def test_json_of_a_schema_parses_and_validates(
    u8_decoder: OpenVinoDecoder, tokenizer: Tokenizer
) -> None:
    sources = [
        GrammarSource(GrammarKind.JSON_SCHEMA, json.dumps(model.model_json_schema())) for model in MODELS
    ]
    sources.append(GrammarSource(GrammarKind.JSON_SCHEMA, '{"type":"object"}'))
    complete = 0
    for model, found in zip([*MODELS, None], await answers(u8_decoder, tokenizer, sources, 56), strict=True):
        for text, reason in found:
            if reason is FinishReason.STOP:
                complete += 1
                value = json.loads(text)
                assert isinstance(value, dict)
                if model is not None:
                    model.model_validate_json(text)
            else:
                assert reason is FinishReason.LENGTH
                assert text.startswith("{")
                pydantic_core.from_json(text, allow_partial="trailing-strings")
    assert complete >= len(MODELS), "some of the answers are short enough"


async def test_regex_and_choice(u8_decoder: OpenVinoDecoder, tokenizer: Tokenizer) -> None:
    patterns = [
        r"\d{4}-\d{2}-\d{2}",
        "yes|no|I don't know",
        "(\U0001f600|é|<\\|im_end\\|>){2}",
        "[^a-z]{1,8}",
    ]
    sources = [GrammarSource(GrammarKind.REGEX, pattern) for pattern in patterns]
    for pattern, found in zip(patterns, await answers(u8_decoder, tokenizer, sources, 24), strict=True):
        for text, reason in found:
            assert reason is FinishReason.STOP, (pattern, text)
            assert re.fullmatch(pattern, text), (pattern, text)
