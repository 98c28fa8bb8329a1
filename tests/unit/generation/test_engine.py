"""The engine over the simulated decoder: what requests get, and when nothing goes wrong."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from carpool.errors import ContextLengthExceeded, Draining, InvalidRequest, Overloaded, StartError
from carpool.generation import FinishReason, GenerationConfig, GenerationRequest, Usage
from carpool.inference_engine import DeviceGate
from carpool.runtimes.decoder import SamplingParams, StepBatch
from tests.unit.generation.passengers import CONFIG, Trip, trip
from tests.unit.generation.ride import prompt
from tests.unit.generation.simulated_decoder import GREEDY, VOCAB_SIZE, SimulatedDecoder, alone


async def test_32_requests_share_steps_and_get_what_they_would_get_alone() -> None:
    decoder = SimulatedDecoder(num_blocks=512)
    async with trip(decoder) as journey:
        for request_id in range(32):
            journey.submit(request_id, prompt(5 + request_id, salt=request_id), 20)
        for request_id in range(32):
            last = await journey.receiver.end(request_id)
            assert last.finish_reason is FinishReason.LENGTH
            assert last.usage == Usage(5 + request_id, 0, 20)
            assert journey.receiver.text(request_id) == alone(prompt(5 + request_id, salt=request_id), 20)
    assert max(len(batch.samples) for batch in decoder.batches) == 32
    assert len(decoder.batches) < 64


async def test_all_outputs_of_a_step_come_in_one_call() -> None:
    async with trip() as journey:
        for request_id in range(8):
            journey.submit(request_id, prompt(4, salt=request_id), 10)
        for request_id in range(8):
            await journey.receiver.end(request_id)
        assert [len(call) for call in journey.receiver.calls] == [8] * 10
        assert journey.engine.steps == 10


async def test_the_bounds_change_while_it_runs() -> None:
    decoder = SimulatedDecoder(num_blocks=512)
    config = GenerationConfig(max_num_seqs=4, max_num_batched_tokens=64)
    async with trip(decoder, config) as journey:
        for request_id in range(8):
            journey.submit(request_id, prompt(4, salt=request_id), 40)
        await journey.receiver.tokens(0, 5)
        assert max(len(batch.samples) for batch in decoder.batches) == 4
        journey.engine.config = replace(config, max_num_seqs=8)
        await journey.receiver.tokens(7, 5)
        assert max(len(batch.samples) for batch in decoder.batches) == 8
        journey.engine.config = replace(config, max_num_seqs=2)  # those that run stay in
        for request_id in range(8, 12):
            journey.submit(request_id, prompt(4, salt=request_id), 40)
        for request_id in range(12):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(4, salt=request_id), 40)
        assert [len(batch.samples) for batch in decoder.batches[-40:]] == [2] * 40
        with pytest.raises(StartError, match="max_num_batched_tokens"):
            journey.engine.config = replace(config, max_num_seqs=64)


async def test_a_request_joins_while_others_run() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(9), 40)
        await journey.receiver.tokens(1, 5)
        journey.submit(2, prompt(9, salt=1), 5)
        await journey.receiver.end(2)
        assert len(journey.receiver.text(1)) < 40
        await journey.receiver.end(1)


async def test_stop_tokens_end_a_sequence_and_are_not_delivered() -> None:
    text = alone(prompt(6), 30)
    stop = text[12]
    expected = text[: text.index(stop)]
    async with trip() as journey:
        fields = {"prompt_ids": prompt(6), "params": GREEDY, "max_tokens": 30}
        for request_id, extra in enumerate(
            [
                {"end_token_ids": frozenset({stop})},
                {"stop_token_ids": frozenset({stop})},
                {"end_token_ids": frozenset({stop}), "ignore_eos": True},
                {"end_token_ids": frozenset({stop}), "min_tokens": 20},
            ]
        ):
            journey.engine.submit(GenerationRequest(request_id=request_id, **fields, **extra))  # type: ignore[arg-type]
        for request_id in (0, 1):
            last = await journey.receiver.end(request_id)
            assert last.finish_reason is FinishReason.STOP
            assert last.usage is not None
            assert last.usage.completion_tokens == len(expected)
            assert journey.receiver.text(request_id) == expected
        assert (await journey.receiver.end(2)).finish_reason is FinishReason.LENGTH
        assert journey.receiver.text(2) == text
        await journey.receiver.end(3)
        assert journey.receiver.text(3) == alone(prompt(6), 30, stop=[stop], min_tokens=20)
        assert stop not in journey.receiver.text(3)[:20]


async def test_after_min_tokens_stop_tokens_stop_again() -> None:
    stop, text = next(
        (stop, text)
        for stop in range(VOCAB_SIZE)
        if 20 <= len(text := alone(prompt(6), 100, stop=[stop], min_tokens=20)) < 100
        and stop in alone(prompt(6), 20)
    )
    async with trip() as journey:
        journey.engine.submit(
            GenerationRequest(
                request_id=1,
                prompt_ids=prompt(6),
                params=GREEDY,
                max_tokens=100,
                min_tokens=20,
                stop_token_ids=frozenset({stop}),
            )
        )
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.STOP
        assert journey.receiver.text(1) == text


async def test_logprobs_come_with_their_tokens() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(6), 4, params=SamplingParams(temperature=0, top_logprobs=1))
        journey.submit(2, prompt(6), 4)
        await journey.receiver.end(1)
        await journey.receiver.end(2)
        for output in journey.receiver.outputs[1, 0]:
            assert output.logprobs is not None
            assert [logprobs.top[0][0] for logprobs in output.logprobs] == output.token_ids
        assert all(output.logprobs is None for output in journey.receiver.outputs[2, 0])


async def test_choices_and_a_second_request_use_the_prompts_memory_again() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(42), 6, params=SamplingParams(seed=3), n=3)
        cached = []
        for index in range(3):
            usage = (await journey.receiver.end(1, index)).usage
            cached.append(usage and usage.cached_tokens)
            assert journey.receiver.text(1, index) == alone(prompt(42), 6, SamplingParams(seed=3 + index))
        assert cached == [0, 40, 40]
        journey.submit(2, [*prompt(42), 1, 2], 6)
        usage = (await journey.receiver.end(2)).usage
        assert usage == Usage(44, 40, 6)
        assert journey.metric("carpool_prefix_cache_hit_tokens_total") == 120


async def test_without_the_prefix_cache_only_choices_of_one_request_share() -> None:
    config = GenerationConfig(max_num_seqs=8, max_num_batched_tokens=64, prefix_cache=False)
    async with trip(config=config) as journey:
        for request_id in (1, 2):
            journey.submit(request_id, prompt(42), 6, n=2)
            await journey.receiver.end(request_id, 0)
            usage = (await journey.receiver.end(request_id, 1)).usage
            assert usage == Usage(42, 40, 6)
        assert journey.metric("carpool_prefix_cache_hit_tokens_total") == 80


async def test_too_little_memory_for_all_serves_all_the_same() -> None:
    decoder = SimulatedDecoder(num_blocks=24)
    async with trip(decoder) as journey:
        for request_id in range(12):
            journey.submit(request_id, prompt(7, salt=request_id), 60)
        for request_id in range(12):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(7, salt=request_id), 60)
        assert journey.metric("carpool_preemptions_total") > 0


async def test_metrics_tell_what_happened() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(9), 5)
        journey.submit(2, prompt(9, salt=1), 5)
        await journey.receiver.end(1)
        await journey.receiver.end(2)
        assert journey.metric("carpool_prompt_tokens_total") == 18
        assert journey.metric("carpool_generation_tokens_total") == 10
        assert journey.metric("carpool_step_batch_size") == 2 * 4  # the first tokens came with the prompts
        assert journey.metric("carpool_sequences_running") == 0
        assert journey.metric("carpool_kv_blocks") == 512


async def test_an_idle_engine_uses_no_cpu() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(9), 5)
        await journey.receiver.end(1)
        steps = journey.engine.steps
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(0.5)  # the measured time, not a synchronisation
        assert (time.process_time() - cpu) / (time.perf_counter() - wall) < 0.05
        assert journey.engine.steps == steps


async def test_what_cannot_run_is_refused_at_once_and_leaves_nothing_behind() -> None:
    async with trip(SimulatedDecoder(num_blocks=20, context_length=100)) as journey:
        with pytest.raises(ContextLengthExceeded):
            journey.submit(1, prompt(100))
        with pytest.raises(InvalidRequest, match="KV memory"):
            journey.submit(1, prompt(50), 40)
        journey.submit(1, prompt(50), 3)
        with pytest.raises(InvalidRequest, match="in use"):
            journey.submit(1, prompt(50), 3)
        await journey.receiver.end(1)


async def test_a_full_queue_refuses_whole_requests() -> None:
    config = GenerationConfig(max_num_seqs=4, max_num_batched_tokens=64, max_queue_seqs=5)
    async with trip(config=config) as journey:
        journey.submit(1, prompt(5), n=3)
        with pytest.raises(Overloaded) as caught:
            journey.submit(2, prompt(5), n=3)
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0
        journey.submit(3, prompt(5), n=2)
        for key in [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1)]:
            await journey.receiver.end(*key)
        assert sorted(journey.receiver.outputs) == [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1)]


async def test_more_choices_than_the_queue_holds_fit_into_an_empty_one() -> None:
    config = GenerationConfig(max_num_seqs=16, max_num_batched_tokens=64, max_queue_seqs=4)
    async with trip(SimulatedDecoder(num_blocks=512), config) as journey:
        journey.submit(1, prompt(5), n=16)
        for index in range(16):
            assert (await journey.receiver.end(1, index)).finish_reason is FinishReason.LENGTH


async def test_the_admission_window_ends_when_every_seat_is_taken() -> None:
    config = GenerationConfig(max_num_seqs=3, max_num_batched_tokens=64, admission_window_ms=3_600_000)
    decoder = SimulatedDecoder()
    async with trip(decoder, config) as journey:
        for request_id in range(3):
            journey.submit(request_id, prompt(5, salt=request_id), 2)
            await asyncio.sleep(0)
        for request_id in range(3):
            await journey.receiver.end(request_id)
    assert len(decoder.batches[0].samples) == 3


async def test_the_admission_window_ends_by_itself() -> None:
    config = GenerationConfig(max_num_seqs=3, max_num_batched_tokens=64, admission_window_ms=5)
    async with trip(config=config) as journey:
        journey.submit(1, prompt(5), 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert journey.engine.steps == 0
        journey.clock.advance(0.005)
        await journey.receiver.end(1)


async def test_a_request_cancelled_in_its_admission_window_holds_up_nobody() -> None:
    config = GenerationConfig(max_num_seqs=3, max_num_batched_tokens=64, admission_window_ms=5)
    async with trip(config=config) as journey:
        journey.submit(1, prompt(5), 2)
        await asyncio.sleep(0)
        journey.engine.cancel(1)
        journey.clock.advance(0.004)
        journey.submit(2, prompt(5), 2)
        journey.clock.advance(0.005)
        await journey.receiver.end(2)


async def test_requests_that_come_together_start_together() -> None:
    decoder = SimulatedDecoder()
    async with trip(decoder) as journey:
        with journey.engine.expecting():
            journey.submit(1, prompt(5), 2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert decoder.batches == []
        journey.submit(2, prompt(5, salt=2), 2)
        for request_id in (1, 2):
            await journey.receiver.end(request_id)
    assert len(decoder.batches[0].samples) == 2


async def test_a_request_that_does_not_come_is_not_waited_for_long() -> None:
    async with trip() as journey:
        with journey.engine.expecting():
            journey.submit(1, prompt(5), 2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert journey.engine.steps == 0
            journey.clock.advance(0.02)
            await journey.receiver.end(1)


async def test_nobody_is_waited_for_without_a_seat() -> None:
    config = GenerationConfig(max_num_seqs=2, max_num_batched_tokens=64)
    async with trip(config=config) as journey:
        with journey.engine.expecting():
            journey.submit(1, prompt(5), 2, n=2)
            await journey.receiver.end(1)


async def test_a_request_cancelled_while_company_was_expected_holds_up_nobody() -> None:
    async with trip() as journey:
        with journey.engine.expecting():
            journey.submit(1, prompt(5), 2)
            for _ in range(5):
                await asyncio.sleep(0)
            journey.engine.cancel(1)
            journey.clock.advance(0.02)
        journey.submit(2, prompt(5), 2)
        await journey.receiver.end(2)


async def test_an_engine_that_expects_company_can_be_stopped() -> None:
    async with trip() as journey:
        with journey.engine.expecting():
            journey.submit(1, prompt(5), 2)
            await asyncio.sleep(0)
            await journey.engine.stop()
            assert (await journey.receiver.end(1)).finish_reason is FinishReason.ERROR


async def test_running_requests_wait_for_none_that_is_expected() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(5), 20)
        await journey.receiver.tokens(1, 1)
        with journey.engine.expecting():
            await journey.receiver.end(1)


async def test_two_engines_share_the_device_one_step_at_a_time() -> None:
    running = threading.Lock()

    def exclusive(batch: StepBatch) -> None:
        assert running.acquire(blocking=False), "two steps ran at once"
        time.sleep(0.0005)  # the device's work
        running.release()

    gate = DeviceGate("wfq")
    decoders = [SimulatedDecoder(before_step=exclusive) for _ in range(2)]
    async with trip(decoders[0], gate=gate) as first, trip(decoders[1], gate=gate) as second:
        for journey in (first, second):
            journey.submit(1, prompt(5), 50)
        for journey in (first, second):
            assert (await journey.receiver.end(1)).finish_reason is FinishReason.LENGTH


async def test_draining_refuses_new_requests_and_ends_the_old_ones() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(5), 30)
        drained = asyncio.create_task(journey.engine.drain())
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            journey.submit(2, prompt(5))
        await drained
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.LENGTH


async def test_stopping_ends_every_request() -> None:
    journey = Trip(SimulatedDecoder(), CONFIG)
    async with journey.engine:
        for request_id in range(50):
            journey.submit(request_id, prompt(5), 100)
        await journey.receiver.tokens(0, 3)
    for request_id in range(50):
        error = journey.receiver.outputs[request_id, 0][-1].error
        assert isinstance(error, Draining)
    assert set(map(len, journey.receiver.endings().values())) == {1}


async def test_a_step_budget_without_room_for_a_prompt_stops_the_start() -> None:
    config = GenerationConfig(max_num_seqs=64, max_num_batched_tokens=64)
    with pytest.raises(StartError, match="at least max_num_seqs plus a KV block, here 68, not 64"):
        Trip(SimulatedDecoder(), config)
