"""Same seed, same text, whatever else is in the batch: in quantised KV memory and in bf16.

Temperature 1 on a model this small is close to dice: where a logit moves by a hundredth, the text soon does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from carpool.generation import GenerationConfig
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.decoder import SamplingParams
from carpool.runtimes.openvino.config import DecoderConfig, KvCachePrecision, WeightFormat
from carpool.runtimes.openvino.decoder import OpenVinoDecoder, load_decoder
from carpool.runtimes.openvino.device import default_precision
from carpool.worker.config import available_cores
from tests.unit.generation.passengers import Trip, trip

pytestmark = [pytest.mark.model, pytest.mark.all_cores]

SEEDED = SamplingParams(temperature=1.0, seed=7, reproducible=True)
ROOMY = GenerationConfig(max_num_seqs=32, max_num_batched_tokens=512)
NARROW = GenerationConfig(max_num_seqs=32, max_num_batched_tokens=64)
SUBJECT, NUM_TOKENS = 0, 32


def loaded(path: Path, config: DecoderConfig) -> Iterator[OpenVinoDecoder]:
    decoder = load_decoder(open_checkpoint(path), config, num_threads=available_cores())
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def bf16_decoder(smollm2_path: Path) -> Iterator[OpenVinoDecoder]:
    if default_precision() != "bf16":
        pytest.skip("this processor does not compute in bf16")
    config = DecoderConfig(
        weights=WeightFormat.BF16, kv_cache_precision=KvCachePrecision.BF16, kv_cache_bytes=128 << 20
    )
    yield from loaded(smollm2_path, config)


@pytest.fixture(scope="module")
def default_decoder(smollm2_path: Path) -> Iterator[OpenVinoDecoder]:
    """As the starter model runs where nothing is set."""
    config = DecoderConfig(kv_cache_bytes=128 << 20)
    yield from loaded(smollm2_path, config)


@pytest.fixture(scope="module")
def int8_decoder(smollm2_path: Path) -> Iterator[OpenVinoDecoder]:
    config = DecoderConfig(weights=WeightFormat.INT8, kv_cache_bytes=128 << 20)
    yield from loaded(smollm2_path, config)


@pytest.fixture(scope="module")
def mixed_decoder(smollm2_path: Path) -> Iterator[OpenVinoDecoder]:
    config = DecoderConfig(weights=WeightFormat.MIXED, kv_cache_bytes=128 << 20)
    yield from loaded(smollm2_path, config)


@pytest.fixture(scope="module", params=["default", "u8", "bf16", "int8", "mixed"])
def decoder(request: pytest.FixtureRequest) -> OpenVinoDecoder:
    decoder: OpenVinoDecoder = request.getfixturevalue(f"{request.param}_decoder")
    return decoder


@pytest.fixture(scope="module")
def prompt(tokenizer: Tokenizer) -> list[int]:
    """97 tokens: three blocks of 32, and one token alone."""
    return tokenizer.encode("Four strangers share a car to the coast. One of them, it turns out, ... " * 8)[
        :97
    ]


async def ride(journey: Trip, prompt: list[int]) -> list[int]:
    journey.submit(SUBJECT, prompt, NUM_TOKENS, params=SEEDED)
    await journey.receiver.end(SUBJECT)
    return journey.receiver.text(SUBJECT)


async def beside_strangers(journey: Trip, prompt: list[int]) -> list[int]:
    """Some are there before, one comes and one leaves while it runs."""
    for request_id in range(1, 12):
        params = SamplingParams(temperature=1.0, seed=request_id)
        journey.submit(request_id, prompt[request_id : 9 * request_id], 8 * request_id, params=params)
    await journey.receiver.tokens(11, 2)
    riding = asyncio.ensure_future(ride(journey, prompt))
    await journey.receiver.tokens(SUBJECT, 9)
    journey.submit(12, prompt[30:80], 8)
    journey.engine.cancel(11)
    return await riding


async def after_one_that_began_alike(journey: Trip, prompt: list[int]) -> list[int]:
    """It finds its first blocks in the prefix cache."""
    journey.submit(1, [*prompt[:70], 5, 6, 7], 2, params=SEEDED)
    await journey.receiver.end(1)
    text = await ride(journey, prompt)
    usage = journey.receiver.outputs[SUBJECT, 0][-1].usage
    assert usage is not None
    assert usage.cached_tokens == 64
    return text


async def returned_to_the_queue(journey: Trip, prompt: list[int]) -> list[int]:
    """It loses its memory twice and computes its tokens again."""
    riding = asyncio.ensure_future(ride(journey, prompt))
    for count in (5, 20):
        await journey.receiver.tokens(SUBJECT, count)
        journey.engine._scheduler.preempt()
    text = await riding
    assert journey.metric("carpool_preemptions_total") == 2
    return text


async def returned_beside_another(journey: Trip, prompt: list[int]) -> list[int]:
    """The same, while somebody without a seed goes on."""
    journey.submit(1, prompt[:20], 150)
    await journey.receiver.tokens(1, 2)
    text = await returned_to_the_queue(journey, prompt)
    assert len(journey.receiver.text(1)) < 150
    return text


@pytest.fixture(scope="module")
def text_alone(decoder: OpenVinoDecoder, prompt: list[int]) -> list[int]:
    async def ride_alone() -> list[int]:
        async with trip(decoder, ROOMY) as journey:
            return await ride(journey, prompt)

    return asyncio.run(ride_alone())


@pytest.mark.parametrize(
    ("company", "config"),
    [
        (ride, ROOMY),
        (ride, NARROW),
        (beside_strangers, ROOMY),
        (beside_strangers, NARROW),
        (after_one_that_began_alike, ROOMY),
        (returned_to_the_queue, ROOMY),
        (returned_beside_another, NARROW),
    ],
    ids=lambda value: getattr(value, "__name__", "chunked" if value is NARROW else "whole"),
)
async def test_the_same_seed_gives_the_same_text(
    decoder: OpenVinoDecoder,
    prompt: list[int],
    text_alone: list[int],
    company: Callable[[Trip, list[int]], Awaitable[list[int]]],
    config: GenerationConfig,
) -> None:
    async with trip(decoder, config) as journey:
        assert await company(journey, prompt) == text_alone


@pytest.mark.parametrize("length", [77, 80])
async def test_a_prompt_near_a_limit_of_kernels_gives_the_same_text(
    decoder: OpenVinoDecoder, prompt: list[int], length: int
) -> None:
    """Beside company steps have other sizes, and at these lengths some processors take other kernels."""
    texts = []
    for company in (0, 6):
        async with trip(decoder, ROOMY) as journey:
            for request_id in range(1, company + 1):
                journey.submit(request_id, prompt[request_id : 9 * request_id], 4)
            journey.submit(SUBJECT, prompt[:length], 4, params=SEEDED)
            await journey.receiver.end(SUBJECT)
            texts.append(journey.receiver.text(SUBJECT))
    assert texts[0] == texts[1]


async def test_an_answer_is_computed_again_when_it_comes_back_in_a_prompt(
    decoder: OpenVinoDecoder, prompt: list[int]
) -> None:
    """What was computed token by token is not what a prompt gives."""
    async with trip(decoder, ROOMY) as journey:
        journey.submit(1, prompt[:40], 60)
        await journey.receiver.end(1)
        turn = [*prompt[:40], *journey.receiver.text(1)]
        after_the_answer = await ride(journey, turn)
    async with trip(decoder, ROOMY) as journey:
        assert await ride(journey, turn) == after_the_answer
