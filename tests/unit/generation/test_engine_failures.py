"""Cancellations, deadlines and failures: every sequence ends exactly once, and nobody else notices."""

import asyncio
import gc
import logging
import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from carpool.errors import CarpoolError, DeadlineExceeded, Unavailable
from carpool.generation import FinishReason, GenerationConfig, SequenceOutput
from carpool.runtimes.decoder import StepBatch, StepResult
from tests.unit.generation.passengers import Barrier, Trip, trip
from tests.unit.generation.ride import prompt
from tests.unit.generation.simulated_decoder import SimulatedDecoder, SimulatedStep, alone
from tests.unit.process_usage import resident_bytes

TWO_SEATS = GenerationConfig(max_num_seqs=2, max_num_batched_tokens=64, max_queue_seqs=100)


async def test_cancelling_ends_one_request_wherever_it_is() -> None:
    async with trip(config=TWO_SEATS) as journey:
        for request_id in range(4):
            journey.submit(request_id, prompt(6, salt=request_id), 40)
        await journey.receiver.tokens(0, 3)
        journey.engine.cancel(0)  # it runs
        journey.engine.cancel(3)  # it waits
        journey.engine.cancel(77)  # nobody
        for request_id in (0, 3):
            assert journey.receiver.outputs[request_id, 0][-1].finish_reason is FinishReason.CANCELLED
            journey.engine.cancel(request_id)
        for request_id in (1, 2):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(6, salt=request_id), 40)


async def test_cancelling_while_a_step_is_in_flight_drops_its_token() -> None:
    barrier = Barrier()
    async with trip(SimulatedDecoder(before_step=barrier)) as journey:
        journey.submit(1, prompt(6), 10)
        journey.submit(2, prompt(6, salt=1), 10)
        await barrier.entered.wait()
        journey.engine.cancel(1)
        journey.submit(1, prompt(6, salt=2), 10)  # the id is free again
        barrier.release()
        await journey.receiver.end(2)
        while len(journey.receiver.endings()[1, 0]) < 2:
            await journey.receiver.tokens(1, len(journey.receiver.text(1)) + 1)
        assert journey.receiver.text(1) == alone(prompt(6, salt=2), 10)
        del journey.receiver.outputs[1, 0][0]


async def test_one_choice_can_be_cancelled() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(6), 30, n=3)
        await journey.receiver.tokens(1, 2)
        journey.engine.cancel(1, index=1)
        assert journey.receiver.endings() == {(1, 0): [], (1, 1): [FinishReason.CANCELLED], (1, 2): []}
        for index in (0, 2):
            assert (await journey.receiver.end(1, index)).finish_reason is FinishReason.LENGTH


async def test_deadlines_end_waiting_and_running_requests() -> None:
    barrier = Barrier()
    async with trip(SimulatedDecoder(before_step=barrier), TWO_SEATS) as journey:
        now = journey.clock.time()
        journey.submit(1, prompt(6), 10, deadline=now + 5, n=2)
        journey.submit(2, prompt(6, salt=1), 10, deadline=now + 5)
        journey.submit(3, prompt(6, salt=2), 10, deadline=now + 50)
        await barrier.entered.wait()
        journey.clock.advance(10)
        for key in [(1, 0), (1, 1), (2, 0)]:
            assert isinstance((await journey.receiver.end(*key)).error, DeadlineExceeded)
        barrier.release()
        assert (await journey.receiver.end(3)).finish_reason is FinishReason.LENGTH
        assert journey.receiver.text(3) == alone(prompt(6, salt=2), 10)


async def test_a_missed_deadline_does_not_reach_the_next_request_of_the_same_id() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(6), 100, deadline=journey.clock.time() + 5)
        await journey.receiver.tokens(1, 2)
        journey.clock.advance(10)
        journey.engine.cancel(1)
        journey.receiver.outputs.clear()
        journey.submit(1, prompt(6), 10)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.LENGTH


async def test_the_timer_of_a_deadline_ends_with_its_request() -> None:
    async with trip() as journey:
        journey.submit(1, prompt(6), 3, n=2, deadline=journey.clock.time() + 5)
        for index in range(2):
            await journey.receiver.end(1, index)
        await asyncio.sleep(0)  # the future's callbacks
        assert [timer.callback for timer in journey.clock.timers] == [None, None]


async def test_a_failed_step_does_not_reach_a_new_request_of_an_old_id() -> None:
    barrier = Barrier()

    def hold_and_fail(batch: StepBatch) -> None:
        decoder.before_step = lambda _: None
        barrier(batch)
        raise ValueError("broken")

    decoder = SimulatedDecoder(before_step=hold_and_fail)
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 10)
        await barrier.entered.wait()
        journey.engine.cancel(1)
        journey.receiver.outputs.clear()
        journey.submit(1, prompt(6, salt=1), 10)
        barrier.release()
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.LENGTH


async def test_a_failed_step_ends_its_requests_and_no_others() -> None:
    def fail_once(batch: StepBatch) -> None:
        decoder.before_step = lambda _: None
        raise ValueError("the device is on fire")

    decoder = SimulatedDecoder(before_step=fail_once)
    async with trip(decoder, TWO_SEATS) as journey:
        for request_id in range(4):
            journey.submit(request_id, prompt(6, salt=request_id), 10)
        for request_id in (0, 1):
            error = (await journey.receiver.end(request_id)).error
            assert type(error) is CarpoolError
            assert "on fire" not in error.message
        for request_id in (2, 3):
            await journey.receiver.end(request_id)
            assert journey.receiver.text(request_id) == alone(prompt(6, salt=request_id), 10)
        assert journey.metric("carpool_step_failures_total") == 1
        assert journey.engine.healthy


async def test_failures_in_a_row_make_the_engine_unhealthy_until_a_step_succeeds() -> None:
    def fail(batch: StepBatch) -> None:
        raise ValueError("broken")

    decoder = SimulatedDecoder(before_step=fail)
    async with trip(decoder) as journey:
        for attempt in range(3):
            assert journey.engine.healthy
            journey.submit(attempt, prompt(6), 3)
            assert (await journey.receiver.end(attempt)).finish_reason is FinishReason.ERROR
        assert not journey.engine.healthy
        assert journey.engine.steps == 0
        decoder.before_step = lambda _: None
        journey.submit(9, prompt(6), 3)
        await journey.receiver.end(9)
        assert journey.engine.steps == 3
        assert journey.engine.healthy


@pytest.mark.parametrize("step", [1, 3])  # the third is launched ahead
async def test_a_step_that_hangs_is_work_when_nobody_waits_for_it_any_more(step: int) -> None:
    barrier = Barrier(step)
    async with trip(SimulatedDecoder(before_step=barrier)) as journey:
        journey.submit(1, prompt(6), 10)
        assert journey.engine.has_work
        await barrier.entered.wait()
        journey.engine.cancel(1)
        assert journey.engine.has_work
        barrier.release()
        await journey.engine.drain()
        while journey.engine.steps < step:  # noqa: ASYNC110  # a step without outputs has no event
            await asyncio.sleep(0)
        assert journey.engine.steps == step
        assert not journey.engine.has_work


@pytest.mark.parametrize("damage", [lambda ids: ids[:-1], lambda ids: [*ids, 1]])
async def test_a_wrong_number_of_tokens_is_a_failed_step(damage: Callable[[list[int]], list[int]]) -> None:
    class Miscounting(SimulatedDecoder):
        def run(self, batch: StepBatch) -> StepResult:
            result = super().run(batch)
            return StepResult(damage(list(result.token_ids)), result.logprobs)

    async with trip(Miscounting()) as journey:
        journey.submit(1, prompt(6), 3)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.ERROR


async def test_a_row_without_numbers_ends_its_request_and_no_other() -> None:
    class Overflowing(SimulatedDecoder):
        def run(self, batch: StepBatch) -> StepResult:
            result = super().run(batch)
            rows = enumerate(batch.samples)
            unusable = [i for i, each in rows if each.row == 1 and len(each.output_ids) == 3]
            return replace(result, unusable=unusable)

    async with trip(Overflowing()) as journey:
        for request_id in range(3):
            journey.submit(request_id, prompt(6, salt=request_id), 10)
        error = (await journey.receiver.end(1)).error
        assert type(error) is CarpoolError
        assert "not a number" in error.message
        for request_id in (0, 2):
            assert (await journey.receiver.end(request_id)).finish_reason is FinishReason.LENGTH
            assert journey.receiver.text(request_id) == alone(prompt(6, salt=request_id), 10)
        assert journey.engine.healthy
        assert journey.metric("carpool_step_failures_total") == 0


async def test_a_row_without_numbers_reaches_nobody_if_it_was_left() -> None:
    """Neither the other choice, nor the next request with the same id."""
    barrier = Barrier()

    class Overflowing(SimulatedDecoder):
        def run(self, batch: StepBatch) -> StepResult:
            result = super().run(batch)
            if len(self.batches) > 1:
                return result
            assert len(batch.samples) == 2  # the second choice waits for the first one's block
            return replace(result, unusable=[0, 1])

    async with trip(Overflowing(before_step=barrier)) as journey:
        journey.submit(1, prompt(6), 10, n=2)
        journey.submit(2, prompt(6, salt=1), 10)
        await barrier.entered.wait()
        journey.engine.cancel(1, index=0)
        journey.engine.cancel(2)
        journey.receiver.outputs.clear()
        journey.submit(2, prompt(6, salt=2), 10)
        barrier.release()
        for key in [(1, 1), (2, 0)]:
            assert (await journey.receiver.end(*key)).finish_reason is FinishReason.LENGTH


async def test_a_launch_that_fails_is_a_failed_step() -> None:
    class Refusing(SimulatedDecoder):
        def launch(self, batch: StepBatch) -> SimulatedStep:
            raise MemoryError

    async with trip(Refusing()) as journey:
        journey.submit(1, prompt(6), 3)
        assert (await journey.receiver.end(1)).finish_reason is FinishReason.ERROR


async def test_launches_that_fail_leave_turns_to_others() -> None:
    class Refusing(SimulatedDecoder):
        refused = 0

        def launch(self, batch: StepBatch) -> SimulatedStep:
            if self.refused < 20:
                self.refused += 1
                raise MemoryError
            return super().launch(batch)

    decoder = Refusing()
    async with trip(decoder, replace(TWO_SEATS, max_num_seqs=1, max_step_failures=30)) as journey:
        for request_id in range(22):
            journey.submit(request_id, prompt(6, salt=request_id), 3)
        turns = []
        while decoder.refused < 20:
            turns.append(decoder.refused)
            await asyncio.sleep(0)
        assert len(set(turns)) > 10  # not all of them in one turn of the loop
        reasons = [(await journey.receiver.end(request_id)).finish_reason for request_id in range(22)]
        assert reasons == [FinishReason.ERROR] * 20 + [FinishReason.LENGTH] * 2


async def test_a_first_step_is_launched_on_the_loop_and_those_behind_it_in_the_thread_that_waits() -> None:
    class Recording(SimulatedDecoder):
        launched_in: list[int]
        ran_in: list[int]

        def launch(self, batch: StepBatch) -> SimulatedStep:
            self.launched_in.append(threading.get_ident())
            return super().launch(batch)

        def run(self, batch: StepBatch) -> StepResult:
            self.ran_in.append(threading.get_ident())
            return super().run(batch)

    decoder = Recording()
    decoder.launched_in, decoder.ran_in = [], []
    async with trip(decoder) as journey:
        journey.submit(1, prompt(6), 5)
        await journey.receiver.end(1)
    here, [thread] = threading.get_ident(), set(decoder.ran_in)
    assert thread != here
    assert decoder.launched_in == [here, thread, thread, thread, thread]


async def test_a_fault_of_the_engine_itself_ends_everything_with_the_reason() -> None:
    journey = Trip(SimulatedDecoder(), TWO_SEATS)
    async with journey.engine:
        for request_id in range(3):
            journey.submit(request_id, prompt(6, salt=request_id), 150)
        await journey.receiver.tokens(0, 2)
        journey.engine._scheduler.running[0].task = None  # what must never happen
        journey.engine._scheduler.blocks._free.clear()
        for request_id in range(3):
            error = (await journey.receiver.end(request_id)).error
            assert type(error) is Unavailable  # and may be sent again
        assert not journey.engine.healthy
        with pytest.raises(Unavailable):
            journey.submit(9, prompt(6))


async def test_in_development_mode_an_idle_engine_looks_at_every_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("carpool.generation.scheduler._CHECKS_EVERYTHING", True)
    journey = Trip(SimulatedDecoder(), TWO_SEATS)
    async with journey.engine:
        journey.submit(1, prompt(6), 3)
        await journey.receiver.end(1)
        assert journey.engine.healthy
        journey.engine._scheduler.blocks._blocks[5].ref_count = 1  # all are free, so nobody owns it
        journey.submit(2, prompt(6, salt=1), 3)
        await journey.receiver.end(2)
        await journey.engine._loop  # type: ignore[misc]
        assert not journey.engine.healthy


async def test_a_receiver_that_raises_does_not_stop_the_engine() -> None:
    async with trip() as journey:

        def fail(outputs: list[SequenceOutput]) -> None:
            journey.receiver(outputs)
            raise ValueError("receiver")

        journey.engine._delivery._on_step = fail
        journey.submit(1, prompt(6), 5)
        await journey.receiver.end(1)
        assert journey.receiver.text(1) == alone(prompt(6), 5)


async def test_chaos_ends_every_request_exactly_once_and_memory_stays_flat(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Random lengths, choices, cancellations, deadlines and failing steps over too little memory."""
    caplog.set_level(logging.CRITICAL, "carpool.generation")  # captured tracebacks would be memory, too
    total = int(os.environ.get("CARPOOL_CHAOS_REQUESTS", "2000"))
    dice = random.Random(5)

    def sometimes_fail(batch: StepBatch) -> None:
        if dice.random() < 0.005:
            raise ValueError("chaos")

    decoder = SimulatedDecoder(num_blocks=96, before_step=sometimes_fail, keep_batches=False)
    config = GenerationConfig(max_num_seqs=24, max_num_batched_tokens=64, reserve_tokens=12)
    expected: dict[int, tuple[list[int], int]] = {}
    held: list[int] = []
    resident: list[int] = []
    async with trip(decoder, config) as journey:
        for begin in range(0, total, 100):
            for request_id in range(begin, min(begin + 100, total)):
                length, max_tokens = dice.randint(1, 60), dice.randint(1, 40)
                expected[request_id] = (prompt(length, salt=dice.randint(0, 9)), max_tokens)
                deadline = journey.clock.time() + dice.uniform(1, 9) if dice.random() < 0.1 else None
                journey.submit(
                    request_id, *expected[request_id], n=dice.choice([1, 1, 1, 2]), deadline=deadline
                )
            for _ in range(60):
                await journey.receiver._change()
                journey.clock.advance(0.02)
                if dice.random() < 0.4:
                    journey.engine.cancel(dice.randint(begin, begin + 99))
                if not journey.engine._delivery._unfinished:
                    break
            while journey.engine._delivery._unfinished:
                await journey.receiver._change()
            journey.engine._scheduler.check_integrity()
            complete(journey.receiver.endings())
            for (request_id, index), outputs in journey.receiver.outputs.items():
                text = alone(*expected[request_id])
                got = journey.receiver.text(request_id, index)
                whole = outputs[-1].finish_reason is FinishReason.LENGTH
                assert got == (text if whole else text[: len(got)])
            seen = len({request_id for request_id, _ in journey.receiver.outputs})
            assert seen == min(100, total - begin)
            journey.receiver.outputs.clear()
            journey.receiver.calls.clear()
            expected.clear()
            gc.collect()
            held.append(len(gc.get_objects()))
            resident.append(resident_bytes())
        assert journey.metric("carpool_preemptions_total") > total / 100
        assert journey.metric("carpool_step_failures_total") > 0
    assert held[-1] < 1.02 * held[len(held) // 4], held
    assert resident[-1] < 1.1 * resident[len(resident) // 4], resident


def complete(endings: dict[tuple[int, int], list[FinishReason]]) -> None:
    assert all(len(reasons) == 1 for reasons in endings.values())
