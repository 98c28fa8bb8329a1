"""The engine on the real CPU runtime: what sharing KV memory gives."""

import gc
import os
import random
import time

import pytest

from carpool.generation import GenerationConfig
from carpool.models.tokenizer import Tokenizer
from carpool.runtimes.openvino.decoder import OpenVinoDecoder
from tests.recording import RecordProperty
from tests.unit.generation.passengers import trip
from tests.unit.process_usage import resident_bytes

pytestmark = pytest.mark.model

CONFIG = GenerationConfig(max_num_seqs=32, max_num_batched_tokens=96)


async def test_50_streams_without_max_tokens_run_together_in_1_gib(
    u8_decoder: OpenVinoDecoder, tokenizer: Tokenizer
) -> None:
    async with trip(u8_decoder, GenerationConfig()) as journey:
        for request_id in range(50):
            prompt = tokenizer.encode(f"Write the long story of the number {request_id}.")
            journey.submit(request_id, prompt, max_tokens=None)
        for request_id in range(50):
            await journey.receiver.tokens(request_id, 3)
        assert journey.metric("carpool_sequences_running") == 50
        assert journey.metric("carpool_preemptions_total") == 0
        assert max(map(len, journey.receiver.calls)) == 50
        for request_id in range(50):
            journey.engine.cancel(request_id)


async def test_a_long_shared_beginning_is_computed_once(
    f32_decoder: OpenVinoDecoder, tokenizer: Tokenizer, record_property: RecordProperty
) -> None:
    beginning = tokenizer.encode("You are a helpful guide to a small town by the river. " * 100)[:1000]
    questions = [tokenizer.encode(f" Where is the {place}?") for place in ("mill", "bridge", "school")]
    async with trip(
        f32_decoder, GenerationConfig(prefix_cache=False, max_num_batched_tokens=1100)
    ) as journey:
        journey.submit(0, [*beginning, *questions[2]], 6)
        await journey.receiver.end(0)
        expected = journey.receiver.text(0)
    async with trip(f32_decoder, CONFIG) as journey:
        started = time.perf_counter()
        for request_id, question in enumerate(questions[:2]):  # together
            journey.submit(request_id, [*beginning, *question], 6)
        await journey.receiver.tokens(0, 1)
        first_s = time.perf_counter() - started
        cached = []
        for request_id in range(2):
            usage = (await journey.receiver.end(request_id)).usage
            assert usage is not None
            cached.append(usage.cached_tokens)
        assert cached == [0, 1000 // f32_decoder.spec.block_size * f32_decoder.spec.block_size]
        steps_of_first = journey.engine.steps
        started = time.perf_counter()
        journey.submit(2, [*beginning, *questions[2]], 6)  # later
        await journey.receiver.tokens(2, 1)
        second_s = time.perf_counter() - started
        usage = (await journey.receiver.end(2)).usage
        assert usage is not None
        assert usage.cached_tokens == cached[1]
        assert journey.engine.steps - steps_of_first == 6
        assert steps_of_first > 10
        assert journey.receiver.text(2) == expected
    assert second_s < first_s / 5
    record_property("measured", f"first token after {first_s * 1e3:.0f} ms, then {second_s * 1e3:.0f} ms")


@pytest.mark.skipif("CARPOOL_CHAOS_REQUESTS" not in os.environ, reason="takes minutes: `make chaos` runs it")
async def test_chaos_on_the_real_model_ends_every_request_exactly_once(u8_decoder: OpenVinoDecoder) -> None:
    """2,000 requests of random lengths, up to a third of them cancelled between two steps."""
    total = min(2000, int(os.environ["CARPOOL_CHAOS_REQUESTS"]))
    dice = random.Random(6)
    held: list[int] = []
    resident: list[int] = []
    for memory in u8_decoder._kv_memory:
        memory.fill(0)  # its pages are the process's from now on, not when a block is first used
    async with trip(u8_decoder, GenerationConfig(max_num_batched_tokens=160)) as journey:
        for begin in range(0, total, 100):
            together = range(begin, begin + 100)
            for request_id in together:
                prompt = [dice.randrange(1000, 40_000) for _ in range(dice.randint(1, 48))]
                journey.submit(request_id, prompt, dice.randint(1, 16))
            victims = dice.sample(together, 33)
            while sum(map(len, journey.receiver.endings().values())) < len(together):
                await journey.receiver._change()
                if victims and dice.random() < 0.5:
                    journey.engine.cancel(victims.pop())
            journey.engine._scheduler.check_integrity()
            assert all(len(reasons) == 1 for reasons in journey.receiver.endings().values())
            journey.receiver.outputs.clear()
            journey.receiver.calls.clear()
            gc.collect()
            held.append(len(gc.get_objects()))
            resident.append(resident_bytes())
    assert held[-1] < 1.02 * held[len(held) // 4], held
    assert resident[-1] < 1.1 * resident[len(resident) // 4], resident
