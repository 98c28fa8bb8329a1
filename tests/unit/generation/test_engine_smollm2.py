"""The engine on the real CPU runtime: sharing steps and KV memory changes nobody's text."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from carpool.generation import FinishReason, GenerationConfig
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import OpenVinoDecoder, load_decoder
from tests.unit.generation.passengers import trip

pytestmark = pytest.mark.model

CONFIG = GenerationConfig(max_num_seqs=32, max_num_batched_tokens=96)
SUBJECTS = ["the sea", "an old clock", "bread", "the moon", "a lost dog", "winter", "a violin", "the harbour"]


@pytest.fixture(scope="module")
def tokenizer(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.from_checkpoint(open_checkpoint(smollm2_path))


@pytest.fixture(scope="module")
def decoder(smollm2_path: Path) -> Iterator[OpenVinoDecoder]:
    """In f32 throughout, so that equal sums give equal tokens."""
    config = DecoderConfig(
        weights=WeightFormat.F32, kv_cache_precision=KvCachePrecision.F32, kv_cache_bytes=384 << 20
    )
    decoder = load_decoder(open_checkpoint(smollm2_path), config, num_threads=2)
    yield decoder
    decoder.close()


async def test_32_requests_together_get_the_text_they_get_alone(
    decoder: OpenVinoDecoder, tokenizer: Tokenizer
) -> None:
    prompts = [
        tokenizer.encode(f"{start} about {subject}. " * length + "It begins:")
        for start, length in [("Write a story", 1), ("Tell me", 3), ("A poem", 6), ("What I know", 12)]
        for subject in SUBJECTS
    ]
    alone = {}
    async with trip(decoder, GenerationConfig(prefix_cache=False)) as journey:
        for request_id in range(0, 32, 3):  # every length and subject; all of them would take a minute
            journey.submit(request_id, prompts[request_id], 8)
            await journey.receiver.end(request_id)
            alone[request_id] = journey.receiver.text(request_id)
    async with trip(decoder, CONFIG) as journey:
        for request_id, prompt in enumerate(prompts):
            journey.submit(request_id, prompt, 8 if request_id in alone else 24)
        for request_id in range(32):
            assert (await journey.receiver.end(request_id)).finish_reason is FinishReason.LENGTH
        assert {request_id: journey.receiver.text(request_id) for request_id in alone} == alone
        assert max(map(len, journey.receiver.calls)) >= 20


async def test_a_long_shared_beginning_is_computed_once(
    decoder: OpenVinoDecoder, tokenizer: Tokenizer
) -> None:
    beginning = tokenizer.encode("You are a helpful guide to a small town by the river. " * 100)[:1000]
    questions = [tokenizer.encode(f" Where is the {place}?") for place in ("mill", "bridge", "school")]
    async with trip(decoder, GenerationConfig(prefix_cache=False, max_num_batched_tokens=1100)) as journey:
        journey.submit(0, [*beginning, *questions[2]], 6)
        await journey.receiver.end(0)
        expected = journey.receiver.text(0)
    async with trip(decoder, CONFIG) as journey:
        for request_id, question in enumerate(questions[:2]):  # together
            journey.submit(request_id, [*beginning, *question], 6)
        cached = []
        for request_id in range(2):
            usage = (await journey.receiver.end(request_id)).usage
            assert usage is not None
            cached.append(usage.cached_tokens)
        assert cached == [0, 1000 // decoder.spec.block_size * decoder.spec.block_size]
        steps_of_first = journey.engine.steps
        journey.submit(2, [*beginning, *questions[2]], 6)  # later
        usage = (await journey.receiver.end(2)).usage
        assert usage is not None
        assert usage.cached_tokens == cached[1]
        assert journey.engine.steps - steps_of_first == 6
        assert steps_of_first > 10
        assert journey.receiver.text(2) == expected
