"""Static mode: the classic request batches, of so many requests or after so many milliseconds."""

import asyncio
import random
from dataclasses import replace

from carpool.generation import STATIC_DEFAULTS, FinishReason, GenerationConfig, Mode
from tests.unit.generation.passengers import Trip, trip
from tests.unit.generation.ride import prompt
from tests.unit.generation.simulated_decoder import SimulatedDecoder, alone

CLASSIC = GenerationConfig(mode=Mode.STATIC, max_num_batched_tokens=64, **STATIC_DEFAULTS)


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)


def sizes(decoder: SimulatedDecoder) -> list[int]:
    """Rows of every step."""
    return [len(batch.past_lens) for batch in decoder.batches]


async def finish(journey: Trip, count: int) -> None:
    for request_id in range(count):
        assert (await journey.receiver.end(request_id)).finish_reason is FinishReason.LENGTH


async def test_a_batch_leaves_50_ms_after_its_first_request() -> None:
    decoder = SimulatedDecoder(num_blocks=512)
    async with trip(decoder, CLASSIC) as journey:
        journey.submit(0, prompt(5), 4)
        await settle()
        journey.clock.advance(0.03)
        journey.submit(1, prompt(5, salt=1), 4)
        await settle()
        assert journey.engine.steps == 0
        journey.clock.advance(0.019)
        await settle()
        assert journey.engine.steps == 0
        journey.clock.advance(0.002)
        await finish(journey, 2)
    assert sizes(decoder) == [2] * 4


async def test_a_batch_of_eight_leaves_at_once() -> None:
    decoder = SimulatedDecoder(num_blocks=512)
    async with trip(decoder, CLASSIC) as journey:
        for request_id in range(8):
            journey.submit(request_id, prompt(5, salt=request_id), 4)
        await finish(journey, 8)
    assert sizes(decoder) == [8] * 4


async def test_nobody_joins_a_batch_that_has_left_and_who_waited_long_leaves_next() -> None:
    decoder = SimulatedDecoder(num_blocks=512)
    async with trip(decoder, CLASSIC) as journey:
        for request_id in range(8):
            journey.submit(request_id, prompt(5, salt=request_id), 4 if request_id else 12)
        await journey.receiver.end(1)
        journey.submit(8, prompt(5, salt=8), 4)
        journey.clock.advance(1)
        await finish(journey, 9)
    assert sizes(decoder) == [8] * 4 + [1] * 8 + [1] * 4
    assert journey.receiver.text(8) == alone(prompt(5, salt=8), 4)


async def test_prompts_longer_than_a_step_stay_one_batch() -> None:
    decoder = SimulatedDecoder(num_blocks=512)
    async with trip(decoder, CLASSIC) as journey:
        for request_id in range(9):
            journey.submit(request_id, prompt(60, salt=request_id), 20)
        await journey.receiver.end(7)
        assert not journey.receiver.text(8)
        journey.clock.advance(0.05)
        await finish(journey, 9)
        for request_id in range(9):
            assert journey.receiver.text(request_id) == alone(prompt(60, salt=request_id), 20)


async def test_a_batch_takes_no_more_than_the_memory_can_carry_to_its_end() -> None:
    decoder = SimulatedDecoder(num_blocks=32)
    async with trip(decoder, replace(CLASSIC, reserve_tokens=1)) as journey:
        for request_id in range(8):
            journey.submit(request_id, prompt(4, salt=request_id), 61)  # 16 blocks each
        for request_id in range(8):
            journey.clock.advance(0.05)
            await journey.receiver.end(request_id)
        assert journey.metric("carpool_preemptions_total") == 0
    assert max(sizes(decoder)) == 2


async def test_on_mixed_lengths_static_batches_take_more_steps_than_continuous_ones() -> None:
    """The same requests, all there at the beginning, with the same number of seats."""
    dice = random.Random(3)
    requests = [(dice.randint(4, 40), dice.randint(4, 64)) for _ in range(64)]
    steps = {}
    for mode in Mode:
        config = replace(CLASSIC, mode=mode)
        async with trip(SimulatedDecoder(num_blocks=512), config) as journey:
            for request_id, (length, max_tokens) in enumerate(requests):
                journey.submit(request_id, prompt(length, salt=request_id), max_tokens)
            journey.clock.advance(0.05)
            await finish(journey, len(requests))
            steps[mode] = journey.engine.steps
            texts = [journey.receiver.text(request_id) for request_id in range(len(requests))]
        assert texts == [alone(prompt(n, salt=i), count) for i, (n, count) in enumerate(requests)]
    assert steps[Mode.STATIC] > 1.4 * steps[Mode.CONTINUOUS], steps
