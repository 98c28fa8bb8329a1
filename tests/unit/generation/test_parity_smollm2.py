"""Greedy text equals Hugging Face's `generate`, token for token, however the engine shares out its steps.

The references are 200 prompts of 1 to 600 tokens with transformers' continuations in float32, made by
scripts/make_generation_reference.py. Every request runs among strangers of other lengths. A first difference
is forgiven where the reference's two likeliest tokens are closer than float32 rounding can tell. `make test`
runs every fifth prompt in one mode and every eighth in the others; `make parity` runs all in all.
"""

import json
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from carpool.generation import FinishReason, GenerationConfig
from carpool.runtimes.openvino.decoder import OpenVinoDecoder
from tests.recording import RecordProperty
from tests.unit.generation.passengers import trip

pytestmark = pytest.mark.model

REFERENCES = Path(__file__).parent / "fixtures/smollm2_greedy.json"
EVERYTHING = bool(os.environ.get("CARPOOL_PARITY"))
NEAR_TIE = 10
"""A logit gap of 1e-3, in the references' unit."""
MOST_DIFFERENCES = 2
"""Of all 200 texts; of a part of them in proportion, rounded up: one near tie may be among any number."""
CHUNKED, UNCHUNKED = 160, 1 << 15
"""Tokens of a step. With 32 decoding sequences a chunk is at most four blocks; 32,768 hold all prompts."""


@dataclass(frozen=True)
class Reference:
    """A prompt, how transformers continues it, and its top-2 logit gaps in units of 1e-4."""

    prompt: list[int]
    output: list[int]
    gaps: list[int]


@pytest.mark.parametrize(
    ("step_tokens", "prefix_cache", "one_in"),
    [(CHUNKED, True, 5), (CHUNKED, False, 8), (UNCHUNKED, True, 8), (UNCHUNKED, False, 8)],
    ids=["chunked-prefix_hits", "chunked", "unchunked-prefix_hits", "unchunked"],
)
async def test_parity_with_hugging_face(
    f32_decoder: OpenVinoDecoder,
    record_property: RecordProperty,
    step_tokens: int,
    prefix_cache: bool,
    one_in: int,
) -> None:
    references = msgspec.convert(json.loads(REFERENCES.read_text()), list[Reference])
    assert len(references) == 200
    references = references[:: 1 if EVERYTHING else one_in]
    random.Random(step_tokens).shuffle(references)  # those of one length are neighbours in the file
    config = GenerationConfig(max_num_seqs=32, max_num_batched_tokens=step_tokens, prefix_cache=prefix_cache)
    async with trip(f32_decoder, config) as journey:
        for request_id, reference in enumerate(references):
            journey.submit(request_id, reference.prompt, len(reference.output))
        for request_id in range(len(references)):
            assert (await journey.receiver.end(request_id)).finish_reason is FinishReason.LENGTH
        texts = [journey.receiver.text(request_id) for request_id in range(len(references))]
        most_together = max(map(len, journey.receiver.calls))
        hit_tokens = journey.metric("carpool_prefix_cache_hit_tokens_total")
    assert most_together > 20
    assert (hit_tokens > 0) == prefix_cache
    differences = [
        (reference.gaps[place], request_id, place)
        for request_id, (reference, text) in enumerate(zip(references, texts, strict=True))
        if (place := first_difference(reference.output, text)) is not None
    ]
    record_property("measured", f"{len(differences)} of {len(references)} texts differ")
    assert all(gap < NEAR_TIE for gap, *_ in differences), differences
    assert len(differences) <= math.ceil(MOST_DIFFERENCES * len(references) / 200)


def first_difference(expected: list[int], found: list[int]) -> int | None:
    """Where two texts of equal length part."""
    return next((i for i, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]), None)
