"""Steps that are launched behind one in flight, before the loop has taken its tokens."""

import asyncio
import threading
from dataclasses import replace

import pytest

from carpool.generation import FinishReason, GenerationConfig, GenerationRequest
from carpool.inference_engine import DeviceGate
from carpool.runtimes.decoder import SamplingParams, StepBatch
from tests.unit.generation.passengers import CONFIG, trip
from tests.unit.generation.ride import prompt
from tests.unit.generation.simulated_decoder import GREEDY, SimulatedDecoder, SimulatedStep, alone


class Halt:
    """Holds a decoder's third step until it is released, so that a test acts while it is in flight."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._steps = 0
        self._released = threading.Event()

    def __call__(self, batch: StepBatch) -> None:
        self._steps += 1
        if self._steps == 3:
            self._loop.call_soon_threadsafe(self.reached.set)
            assert self._released.wait(timeout=30)

    def release(self) -> None:
        self._released.set()


def is_ahead(batch: StepBatch) -> bool:
    return bool((batch.token_ids < 0).any())


async def test_all_steps_but_the_first_are_launched_ahead() -> None:
    decoder = SimulatedDecoder()
    params = [GREEDY, SamplingParams(seed=5)]
    async with trip(decoder) as journey:
        for request_id, each in enumerate(params):
            journey.submit(request_id, prompt(6, salt=request_id), 10, params=each)
        for request_id, each in enumerate(params):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(6, salt=request_id), 10, each)
    assert [is_ahead(batch) for batch in decoder.batches] == [False] + [True] * 9


async def test_a_request_that_comes_while_a_step_is_in_flight_is_in_the_next_one() -> None:
    halt = Halt()
    decoder = SimulatedDecoder(before_step=halt)
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 10)
        await halt.reached.wait()
        journey.submit(2, prompt(7, salt=1), 10)
        halt.release()
        for request_id, length in ((1, 6), (2, 7)):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(length, salt=request_id - 1), 10)
    assert len(decoder.batches[3].token_ids) == 1 + 7
    assert is_ahead(decoder.batches[4])


async def test_other_bounds_hold_from_the_next_step_on() -> None:
    halt = Halt()
    decoder = SimulatedDecoder(before_step=halt)
    async with trip(decoder, GenerationConfig(max_num_seqs=1, max_num_batched_tokens=64)) as journey:
        for request_id in (1, 2):
            journey.submit(request_id, prompt(6, salt=request_id), 10)
        await halt.reached.wait()
        journey.engine.config = replace(journey.engine.config, max_num_seqs=2)
        halt.release()
        for request_id in (1, 2):
            await journey.receiver.end(request_id)
    assert len(decoder.batches[3].samples) == 2


async def test_a_model_that_waits_for_the_device_gets_it_after_the_step_in_flight() -> None:
    halt, gate = Halt(), DeviceGate()
    decoder = SimulatedDecoder(before_step=halt)
    async with trip(decoder, gate=gate) as journey:
        journey.submit(1, prompt(6), 10)
        await halt.reached.wait()

        async def steps_before_the_turn() -> int:
            async with gate.turn("other"):
                return len(decoder.batches)

        others = asyncio.create_task(steps_before_the_turn())
        while not gate.waiting:  # noqa: ASYNC110  # the gate has no event for it
            await asyncio.sleep(0)
        halt.release()
        assert await others == 3
        await journey.receiver.end(1)
        assert journey.receiver.text(1) == alone(prompt(6), 10)


@pytest.mark.parametrize("too_many", [0, 1])
async def test_stop_tokens_are_allowed_from_min_tokens_on(too_many: int) -> None:
    text = alone(prompt(6), 20)
    place, stop = next((i, token) for i, token in enumerate(text) if i > 3 and token not in text[:i])
    async with trip() as journey:
        journey.engine.submit(
            GenerationRequest(
                request_id=1,
                prompt_ids=prompt(6),
                params=GREEDY,
                max_tokens=20,
                min_tokens=place + too_many,
                stop_token_ids=frozenset({stop}),
            )
        )
        await journey.receiver.end(1)
        expected = alone(prompt(6), 20, stop=[stop], min_tokens=place + too_many)
        assert journey.receiver.text(1) == expected
        assert (len(expected) == place) == (too_many == 0)


async def test_who_ended_takes_part_in_vain_and_alone_in_nothing() -> None:
    text = alone(prompt(6), 20)
    stop = next(token for place, token in enumerate(text) if place > 3 and token not in text[:place])
    expected = text[: text.index(stop)]
    alone_decoder, decoder = SimulatedDecoder(), SimulatedDecoder(num_blocks=12)
    ending = GenerationRequest(
        request_id=1, prompt_ids=prompt(6), params=GREEDY, max_tokens=20, stop_token_ids=frozenset({stop})
    )
    async with trip(alone_decoder) as journey:
        journey.engine.submit(ending)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.STOP
    assert len(alone_decoder.batches) == len(expected) + 1

    async with trip(decoder, replace(CONFIG, reserve_tokens=1)) as journey:
        journey.engine.submit(ending)
        journey.submit(2, prompt(9, salt=1), 30)  # needs what the other one leaves
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.STOP
        assert journey.receiver.text(1) == expected
        await journey.receiver.end(2)
        assert journey.receiver.text(2) == alone(prompt(9, salt=1), 30)
    sizes = [len(batch.samples) for batch in decoder.batches]
    assert sizes.count(2) == len(expected) + 2  # one of them in vain


async def test_a_step_that_cannot_be_launched_ahead_is_scheduled_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing(SimulatedDecoder):
        def launch(self, batch: StepBatch) -> SimulatedStep:
            if is_ahead(batch):
                raise MemoryError
            return super().launch(batch)

    decoder = Refusing()
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 5)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.LENGTH
        assert journey.receiver.text(1) == alone(prompt(6), 5)
        assert journey.metric("carpool_step_failures_total") == 0
    assert "could not be launched ahead" in caplog.text
    assert len(decoder.batches) == 5


async def test_a_step_that_fails_takes_the_step_ahead_with_it() -> None:
    def fail_third(batch: StepBatch) -> None:
        if len(decoder.batches) == 3:
            raise ValueError("broken")

    decoder = SimulatedDecoder(before_step=fail_third)
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 10)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.ERROR
        journey.submit(2, prompt(6, salt=1), 3)
        await journey.receiver.end(2)
        assert journey.receiver.text(2) == alone(prompt(6, salt=1), 3)
        assert journey.metric("carpool_step_failures_total") == 1
    assert len(decoder.batches) == 3 + 3
