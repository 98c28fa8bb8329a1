"""Steps that are launched behind one in flight, before the loop has taken its tokens."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from carpool.generation import FinishReason, GenerationConfig, GenerationRequest, Mode, SequenceOutput
from carpool.generation.grammar import Matcher
from carpool.generation.step import Step
from carpool.inference_engine import DeviceGate
from carpool.runtimes.decoder import SamplingParams, StepBatch, StepResult
from tests.unit.generation.fake_clock import FakeClock
from tests.unit.generation.grammars import MaskedDecoder, regex
from tests.unit.generation.passengers import CONFIG, Barrier, Trip, trip
from tests.unit.generation.ride import prompt
from tests.unit.generation.simulated_decoder import GREEDY, SimulatedDecoder, SimulatedStep, alone


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


async def test_masks_of_grammars_are_computed_before_the_step_is_waited_for() -> None:
    grammar = await regex("[01]{9}")
    found: list[bool] = []

    def look(_: StepBatch) -> None:
        matchers = [seq.matcher for seq in journey.engine._scheduler.running]
        found.extend(matcher is not None and matcher._mask is not None for matcher in matchers)

    decoder = MaskedDecoder(before_step=look)
    async with trip(decoder) as journey:
        for request_id in range(3):
            fields = {"prompt_ids": prompt(6, salt=request_id), "max_tokens": 20, "grammar": grammar}
            journey.engine.submit(GenerationRequest(request_id=request_id, **fields))  # type: ignore[arg-type]
        for request_id in range(3):
            await journey.receiver.end(request_id)
            assert len(journey.receiver.text(request_id)) == 9
    assert found == [True] * 27
    assert [is_ahead(batch) for batch in decoder.batches] == [False] + [True] * 8


async def test_a_request_that_comes_while_a_step_is_in_flight_is_in_the_next_one() -> None:
    barrier = Barrier(step=3)
    decoder = SimulatedDecoder(before_step=barrier)
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 10)
        await barrier.entered.wait()
        journey.submit(2, prompt(7, salt=1), 10)
        barrier.release()
        for request_id, length in ((1, 6), (2, 7)):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(length, salt=request_id - 1), 10)
    assert len(decoder.batches[3].token_ids) == 1 + 7
    assert is_ahead(decoder.batches[4])


async def test_other_bounds_hold_from_the_next_step_on() -> None:
    barrier = Barrier(step=3)
    decoder = SimulatedDecoder(before_step=barrier)
    async with trip(decoder, GenerationConfig(max_num_seqs=1, max_num_batched_tokens=64)) as journey:
        for request_id in (1, 2):
            journey.submit(request_id, prompt(6, salt=request_id), 10)
        await barrier.entered.wait()
        journey.engine.config = replace(journey.engine.config, max_num_seqs=2)
        barrier.release()
        for request_id in (1, 2):
            await journey.receiver.end(request_id)
    assert len(decoder.batches[3].samples) == 2


async def test_a_model_that_waits_for_the_device_gets_it_after_the_step_in_flight() -> None:
    barrier, gate = Barrier(step=3), DeviceGate()
    decoder = SimulatedDecoder(before_step=barrier)
    async with trip(decoder, gate=gate) as journey:
        journey.submit(1, prompt(6), 10)
        await barrier.entered.wait()

        async def steps_before_the_turn() -> int:
            async with gate.turn("other"):
                return len(decoder.batches)

        others = asyncio.create_task(steps_before_the_turn())
        while not gate.waiting:  # noqa: ASYNC110  # the gate has no event for it
            await asyncio.sleep(0)
        barrier.release()
        assert await others == 3
        await journey.receiver.end(1)
        assert journey.receiver.text(1) == alone(prompt(6), 10)


def ending() -> tuple[GenerationRequest, list[int]]:
    """A request that ends by a stop token after some steps, and its text."""
    text = alone(prompt(6), 20)
    place, stop = next((i, token) for i, token in enumerate(text) if i > 3 and token not in text[:i])
    request = GenerationRequest(
        request_id=1,
        prompt_ids=prompt(6),
        params=GREEDY,
        max_tokens=20,
        stop_token_ids=frozenset({stop}),
    )
    return request, text[:place]


@pytest.mark.parametrize("too_many", [0, 1])
async def test_stop_tokens_are_allowed_from_min_tokens_on(too_many: int) -> None:
    request, text = ending()
    min_tokens = len(text) + too_many
    async with trip() as journey:
        journey.engine.submit(replace(request, min_tokens=min_tokens))
        await journey.receiver.end(1)
        expected = alone(prompt(6), 20, stop=sorted(request.stop_token_ids), min_tokens=min_tokens)
        assert journey.receiver.text(1) == expected
        assert (expected == text) == (too_many == 0)


async def test_nothing_is_launched_ahead_if_all_have_ended() -> None:
    decoder = SimulatedDecoder()
    request, expected = ending()
    async with trip(decoder) as journey:
        journey.engine.submit(request)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.STOP
        assert journey.receiver.text(1) == expected
    assert len(decoder.batches) == len(expected) + 1


async def test_nothing_is_launched_behind_a_row_without_numbers() -> None:
    class Overflowing(SimulatedDecoder):
        def run(self, batch: StepBatch) -> StepResult:
            return replace(super().run(batch), unusable=[0] if len(self.batches) == 3 else [])

    decoder = Overflowing()
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 10)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.ERROR
    assert len(decoder.batches) == 3


async def test_who_ended_takes_part_in_vain_once() -> None:
    decoder = SimulatedDecoder(num_blocks=12)
    request, expected = ending()
    async with trip(decoder, replace(CONFIG, reserve_tokens=1)) as journey:
        journey.engine.submit(request)
        journey.submit(2, prompt(9, salt=1), 30)  # needs what the other one leaves
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.STOP
        assert journey.receiver.text(1) == expected
        await journey.receiver.end(2)
        assert journey.receiver.text(2) == alone(prompt(9, salt=1), 30)
    sizes = [len(batch.samples) for batch in decoder.batches]
    assert sizes.count(2) == len(expected) + 2


@pytest.mark.parametrize("mode", Mode)
async def test_who_waits_for_a_seat_gets_it_in_the_next_step(mode: Mode) -> None:
    decoder = SimulatedDecoder()
    config = GenerationConfig(max_num_seqs=2, max_num_batched_tokens=64, mode=mode)
    request, expected = ending()
    async with trip(decoder, config) as journey:
        journey.engine.submit(request)
        for request_id in (2, 3):
            journey.submit(request_id, prompt(9, salt=request_id), 20)
        for request_id in (2, 3):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(9, salt=request_id), 20)
    assert is_ahead(decoder.batches[1])
    sizes = [len(batch.samples) for batch in decoder.batches]
    if mode is Mode.CONTINUOUS:
        assert sizes[: len(expected) + 2] == [2] * (len(expected) + 2)
        assert len(decoder.batches[len(expected) + 1].token_ids) == 1 + 9
    else:  # the batch runs to its end
        assert is_ahead(decoder.batches[len(expected) + 2])
        assert sizes == [2] * (len(expected) + 1) + [1] * (20 - len(expected) - 1 + 20)


async def test_sequences_end_with_their_grammars_and_leave_them_as_they_are() -> None:
    grammars = [await regex(pattern) for pattern in ("[01]{3}", "[01]{9}")]
    discarded: list[int] = []
    for number, grammar in enumerate(grammars):
        grammar.discard = partial(discarded.append, number)
    async with trip(MaskedDecoder()) as journey:
        for request_id, grammar in enumerate(grammars):
            fields = {"prompt_ids": prompt(6, salt=request_id), "max_tokens": 20, "grammar": grammar}
            journey.engine.submit(GenerationRequest(request_id=request_id, **fields))  # type: ignore[arg-type]
        for request_id, length in enumerate((3, 9)):
            assert (await journey.receiver.end(request_id)).finish_reason is FinishReason.STOP
            assert len(journey.receiver.text(request_id)) == length
    assert not discarded


async def test_a_launch_ahead_that_fails_is_a_failed_step() -> None:
    class Refusing(SimulatedDecoder):
        def launch(self, batch: StepBatch) -> SimulatedStep:
            if is_ahead(batch) and len(self.batches) == 4:
                raise MemoryError
            return super().launch(batch)

    decoder = Refusing()
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 4)
        journey.submit(2, prompt(6, salt=1), 10)
        assert (await journey.receiver.end(2)).finish_reason is FinishReason.ERROR
        assert journey.receiver.text(2) == alone(prompt(6, salt=1), 4)  # what was drawn before
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.LENGTH
        assert journey.metric("carpool_step_failures_total") == 1
        assert journey.engine.steps == 4


async def test_no_step_is_left_on_the_device_by_a_fault_of_the_engine() -> None:
    class Counting(SimulatedDecoder):
        in_flight = 0

        def launch(self, batch: StepBatch) -> SimulatedStep:
            self.in_flight += 1
            return super().launch(batch)

        def run(self, batch: StepBatch) -> StepResult:
            self.in_flight -= 1
            return super().run(batch)

    decoder = Counting()
    journey = Trip(decoder, CONFIG)
    async with journey.engine:
        postprocess = journey.engine._scheduler.postprocess

        def fail_third(step: Step, result: StepResult) -> list[SequenceOutput]:
            if journey.engine.steps == 3:
                raise ValueError("broken")
            return postprocess(step, result)

        journey.engine._scheduler.postprocess = fail_third  # type: ignore[method-assign]
        journey.submit(1, prompt(6), 20)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.ERROR
        assert not journey.engine.healthy
        assert decoder.in_flight == 0


async def test_masks_that_fail_leave_no_step_on_the_device() -> None:
    class Broken(Matcher):
        def mask(self) -> None:
            raise MemoryError

    decoder = MaskedDecoder()
    async with trip(decoder) as journey:
        fields = {"prompt_ids": prompt(6), "max_tokens": 20, "grammar": await regex("[01]{9}")}
        journey.engine.submit(GenerationRequest(request_id=1, **fields))  # type: ignore[arg-type]
        task = journey.engine._queue.peek()
        assert task is not None
        task.data.matcher = Broken(task.data.matcher.grammar)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.ERROR
    assert len(decoder.batches) == 1


async def test_models_share_the_device_after_one_had_it_alone() -> None:
    clock = FakeClock()
    gate = DeviceGate("wfq", clock=clock)
    turns: list[str] = []

    def decoder(name: str) -> SimulatedDecoder:
        def work(_: StepBatch) -> None:
            turns.append(name)
            clock.now += 1

        return SimulatedDecoder(num_blocks=128, context_length=400, before_step=work)

    async with trip(decoder("a"), gate=gate) as first, trip(decoder("b"), gate=gate) as second:
        first.engine.name, second.engine.name = "a", "b"
        first.submit(1, prompt(6), 300)
        await first.receiver.tokens(1, 100)
        begin = len(turns)
        second.submit(1, prompt(6), 100)
        await second.receiver.end(1)
        assert gate.used_ms["a"] > 150_000
    assert 40 <= turns[begin : begin + 100].count("b") <= 60


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
