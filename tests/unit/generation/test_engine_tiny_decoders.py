"""Every architecture on the engine says token for token what transformers says.

The models, the prompts and the references are those of `scripts/make_decoder_reference.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carpool.generation import GenerationConfig
from carpool.models.open import open_checkpoint
from carpool.runtimes.decoder import SamplingParams
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import OpenVinoDecoder, load_decoder
from tests.recording import RecordProperty
from tests.unit.generation.passengers import trip
from tests.unit.runtimes.tiny_decoders import DECODERS, NEW_TOKENS, digest, prompts

FIXTURE = Path(__file__).parents[1] / "runtimes/fixtures/tiny_decoders.json"
REFERENCE: dict[str, Any] = json.loads(FIXTURE.read_text())
F32 = DecoderConfig(
    weights=WeightFormat.F32, kv_cache_precision=KvCachePrecision.F32, kv_cache_bytes=64 << 20
)
TIE = 10
"""Top-2 logit gaps below this, in units of 1e-4, may fall either way."""
PROMPTS = prompts()
CONFIGS = {
    "whole prompts": GenerationConfig(max_num_batched_tokens=1 << 14, prefix_cache=False),
    "chunks": GenerationConfig(max_num_batched_tokens=96, prefix_cache=False),
    "chunks and prefix hits": GenerationConfig(max_num_batched_tokens=96),
    # A few at a time, so that the later of a family find the first one's blocks.
    "whole prompts and prefix hits": GenerationConfig(max_num_batched_tokens=1 << 14, max_num_seqs=4),
}


@pytest.fixture(scope="module", params=DECODERS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, OpenVinoDecoder]]:
    """In f32 throughout; one of two files, so that both ways of storing are read."""
    shards = 1 + list(DECODERS).index(request.param) % 2
    directory = DECODERS[request.param].write(tmp_path_factory.mktemp("model"), shards)
    decoder = load_decoder(open_checkpoint(directory), F32, num_threads=2)
    yield request.param, decoder
    decoder.close()


@pytest.mark.parametrize("name", DECODERS)
def test_the_weights_are_those_of_the_references(name: str) -> None:
    assert digest(DECODERS[name].weights()) == REFERENCE[name]["weights"]


@pytest.mark.parametrize("config", CONFIGS)
async def test_greedy_tokens_are_those_of_transformers(
    model: tuple[str, OpenVinoDecoder], config: str, record_property: RecordProperty
) -> None:
    """All prompts together, between strangers that are sampled."""
    name, decoder = model
    async with trip(decoder, CONFIGS[config]) as journey:
        for request_id, prompt in enumerate(PROMPTS):
            journey.submit(request_id, prompt, NEW_TOKENS)
            journey.submit(100 + request_id, prompt[:50] or [0], 9, params=SamplingParams(seed=request_id))
        usages = [(await journey.receiver.end(request_id)).usage for request_id in range(len(PROMPTS))]
        texts = [journey.receiver.text(request_id) for request_id in range(len(PROMPTS))]
        for request_id in range(len(PROMPTS)):
            await journey.receiver.end(100 + request_id)
    ties = sum(_is_tie(text, *row) for text, row in zip(texts, REFERENCE[name]["rows"], strict=True))
    record_property("measured", f"{ties} of {len(texts)} texts differ")
    assert ties <= 1
    hits = sum(usage.cached_tokens for usage in usages if usage is not None)
    assert (hits > 0) == CONFIGS[config].prefix_cache


def _is_tie(found: list[int], expected: list[int], gaps: list[int]) -> bool:
    """Whether the texts part at a tie; fails where they part elsewhere."""
    assert len(found) == len(expected)
    for place, (ours, theirs, gap) in enumerate(zip(found, expected, gaps, strict=True)):
        if ours != theirs:
            assert gap < TIE, f"token {place} is {ours}, not {theirs}, with a gap of {gap / 10_000}"
            return True
    return False
