"""The scheduler step by step, and at random, against the simulated decoder."""

from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from carpool.generation import FinishReason
from carpool.generation.sequence import Sequence, Status
from carpool.generation.step import Step
from carpool.inference_engine import Priority
from carpool.runtimes.decoder import SamplingParams, in_flight
from tests.unit.generation.ride import Ride, prompt
from tests.unit.generation.simulated_decoder import GREEDY, VOCAB_SIZE, alone


@pytest.fixture
def make_ride() -> Iterator[Callable[..., Ride]]:
    rides: list[Ride] = []

    def make(**config: int) -> Ride:
        rides.append(Ride(**config))
        return rides[-1]

    yield make
    for ride in rides:
        ride.close()


MakeRide = Callable[..., Ride]


def rows(step: Step | None) -> dict[int, int]:
    """Tokens by request id."""
    assert step is not None
    return {seq.request.request_id: count for seq, count in step.rows}


def scheduled(ride: Ride) -> Step:
    step = ride.schedule()
    assert step is not None
    return step


def cached_tokens(ride: Ride, request_id: int) -> int:
    usage = ride.outputs[request_id, 0][-1].usage
    assert usage is not None
    return usage.cached_tokens


def test_decodes_ride_together_with_prompt_chunks_that_end_on_block_boundaries(make_ride: MakeRide) -> None:
    ride = make_ride(max_num_batched_tokens=32)
    ride.add(1, prompt(6), 20)
    assert rows(ride.step()) == {1: 6}
    ride.add(2, prompt(70, salt=1), 5)
    assert rows(ride.step()) == {1: 1, 2: 28}
    assert rows(ride.step()) == {1: 1, 2: 28}
    assert rows(ride.step()) == {1: 1, 2: 14}
    ride.run()
    assert ride.text(1) == alone(prompt(6), 20)
    assert ride.text(2) == alone(prompt(70, salt=1), 5)


def test_a_long_prompt_leaves_a_quarter_to_those_behind_it(make_ride: MakeRide) -> None:
    ride = make_ride(max_num_batched_tokens=32)
    ride.add(1, prompt(100), 2)
    ride.add(2, prompt(5, salt=1), 2)
    assert rows(ride.step()) == {1: 24, 2: 5}
    assert rows(ride.step()) == {1: 28, 2: 1}


def test_what_those_behind_have_no_use_for_is_not_left_to_them(make_ride: MakeRide) -> None:
    choices = make_ride(max_num_batched_tokens=32)
    choices.add(1, prompt(100), 2, n=4)
    assert rows(choices.step()) == {1: 32}  # the others wait for the same blocks
    choices.run()
    assert sum(len(batch.token_ids) for batch in choices.decoder.batches) == 96 + 4 * 4 + 4

    beginning = prompt(96)
    together = make_ride(max_num_batched_tokens=32)
    for request_id in range(3):
        together.add(request_id, [*beginning, request_id, 0], 2)
    assert rows(together.step()) == {0: 32}
    together.run()

    crowded = make_ride(max_num_batched_tokens=32, num_blocks=30)
    crowded.add(1, prompt(100), 2)
    crowded.add(2, prompt(100, salt=1), 2)  # no memory for it yet
    assert rows(crowded.step()) == {1: 32}
    crowded.run()
    for request_id in (1, 2):
        assert crowded.text(request_id) == alone(prompt(100, salt=request_id - 1), 2)


def test_the_rest_goes_to_the_oldest_prompt_that_can_use_it(make_ride: MakeRide) -> None:
    ride = make_ride(num_blocks=128, max_num_batched_tokens=128)
    ride.add(1, prompt(9), 2)
    ride.add(2, prompt(100, salt=1), 2)
    ride.add(3, prompt(100, salt=2), 2)
    ride.add(4, prompt(100, salt=2), 2)
    # Of 119 the second takes 88, of 31 the third 24; the fourth waits for the third's blocks, so 7 are left.
    assert rows(ride.step()) == {1: 9, 2: 88 + 4, 3: 24}
    ride.run()
    for request_id, salt in enumerate([1, 2, 2], start=2):
        assert ride.text(request_id) == alone(prompt(100, salt=salt), 2)


def test_the_oldest_prompt_goes_on_however_small_the_budget_that_is_left(make_ride: MakeRide) -> None:
    ride = make_ride(max_num_seqs=4, max_num_batched_tokens=20, block_size=16)
    ride.add(1, prompt(3), 30)
    ride.step()
    ride.add(2, prompt(60, salt=1), 2)
    ride.add(3, prompt(60, salt=2), 2)
    assert [rows(ride.step()) for _ in range(3)] == [{1: 1, 2: 16}] * 3
    assert rows(ride.step()) == {1: 1, 2: 12}
    assert rows(ride.step()) == {1: 1, 2: 1, 3: 16}


def test_a_chunk_is_never_longer_than_what_is_left_of_its_prompt(make_ride: MakeRide) -> None:
    """More than the share that leaves something to others, and less than a block."""
    ride = make_ride(max_num_seqs=3, max_num_batched_tokens=20, block_size=16)
    ride.add(1, prompt(15), 2)
    ride.add(2, prompt(40, salt=1), 2)
    assert rows(ride.step()) == {1: 15}
    ride.run()
    assert ride.text(1) == alone(prompt(15), 2)


def test_the_head_of_the_queue_is_not_overtaken_for_want_of_memory(make_ride: MakeRide) -> None:
    ride = make_ride(num_blocks=12, reserve_tokens=4)
    ride.add(1, prompt(20), 9)  # 6 of 12 blocks promised
    ride.add(2, prompt(40, salt=1), 2)  # needs 11
    ride.add(3, prompt(3, salt=2), 2)  # would fit
    first = [rows(ride.step()) for _ in range(9)]
    assert all(2 not in step and 3 not in step for step in first)
    assert 2 in rows(ride.step())
    ride.run()


def test_equal_beginnings_that_arrive_together_are_computed_once(make_ride: MakeRide) -> None:
    ride = make_ride(max_num_batched_tokens=32, max_num_seqs=8)
    beginning = prompt(64)
    for request_id in range(6):
        ride.add(request_id, [*beginning, request_id, 0], 3)
    ride.run()
    computed = sum(len(batch.token_ids) for batch in ride.decoder.batches)
    assert computed == 64 + 6 * 2 + 6 * 2
    assert ride.scheduler.num_cached_tokens == 5 * 64
    for request_id in range(6):
        assert ride.text(request_id) == alone([*beginning, request_id, 0], 3)


def test_n_choices_share_the_prompts_full_blocks_and_differ_by_seed(make_ride: MakeRide) -> None:
    ride = make_ride(num_blocks=64)
    params = SamplingParams(temperature=1.0, seed=7)
    ride.add(1, prompt(22), 6, params=params, n=4)
    ride.step()
    ride.step()
    assert ride.scheduler.blocks.num_used == 5 + 4  # five full blocks of the prompt, four ends
    ride.run()
    texts = [ride.text(1, index) for index in range(4)]
    assert texts == [
        alone(prompt(22), 6, SamplingParams(temperature=1.0, seed=7 + index)) for index in range(4)
    ]
    assert len(set(map(tuple, texts))) == 4


def test_a_finished_answer_is_found_again_as_part_of_the_next_prompt(make_ride: MakeRide) -> None:
    ride = make_ride()
    ride.add(1, prompt(10), 10)
    ride.run()
    turn = [*prompt(10), *ride.text(1), *prompt(5, salt=3)]
    ride.add(2, turn, 4)
    ride.run()
    assert cached_tokens(ride, 2) == 16  # of 19 that were computed
    assert ride.text(2) == alone(turn, 4)


def test_when_blocks_run_out_the_youngest_of_the_lowest_priority_waits_and_goes_on(
    make_ride: MakeRide,
) -> None:
    ride = make_ride(num_blocks=16, reserve_tokens=4)
    bulk = ride.add(1, prompt(8), 30, priority=Priority.BULK)[0]
    old = ride.add(2, prompt(8, salt=1), 30)[0]
    young = ride.add(3, prompt(8, salt=2), 30)[0]
    order = []
    while ride.step() is not None:
        order += [seq for seq in (bulk, old, young) if seq.num_preemptions and seq not in order]
    assert order == [bulk, young]
    assert old.num_preemptions == 0
    for request_id in (1, 2, 3):
        assert ride.text(request_id) == alone(prompt(8, salt=request_id - 1), 30)
        assert cached_tokens(ride, request_id) == 0


def test_a_removed_sequence_takes_no_other_with_it(make_ride: MakeRide) -> None:
    ride = make_ride()
    sequences = [ride.add(request_id, prompt(20), 8)[0] for request_id in range(3)]
    for _ in range(3):
        ride.step()
    step = ride.schedule()
    assert step is not None
    ride.scheduler.remove(sequences[1])  # while the step is in flight
    ride.finish(step)
    ride.run()
    assert ride.text(0) == ride.text(2) == alone(prompt(20), 8)
    assert ride.outputs[1, 0][-1].finish_reason is None


def test_a_reproducible_sequence_computes_its_output_token_by_token_again(make_ride: MakeRide) -> None:
    params = SamplingParams(temperature=1.0, seed=5, reproducible=True)
    ride = make_ride()
    ride.add(1, prompt(10), 20, params=params)
    for _ in range(7):
        ride.step()
    ride.scheduler.preempt()
    again = [rows(ride.step()) for _ in range(8)]
    assert again == [{1: 2}] + [{1: 1}] * 7  # its prompt's full blocks were found
    ride.run()
    assert ride.text(1) == alone(prompt(10), 20, params)


def test_a_reproducible_sequence_takes_over_prompts_of_its_like_only(make_ride: MakeRide) -> None:
    ride = make_ride()
    seeded = SamplingParams(temperature=0, reproducible=True)
    ride.add(1, prompt(10), 10)
    ride.run()
    turn = [*prompt(10), *ride.text(1), 1, 2]
    for request_id, params in [(2, seeded), (3, seeded), (4, GREEDY)]:
        ride.add(request_id, turn, 2, params=params)
        ride.run()
    assert [cached_tokens(ride, request_id) for request_id in (2, 3, 4)] == [0, 20, 16]


def test_a_prompt_never_leaves_a_single_token_to_compute(make_ride: MakeRide) -> None:
    ride = make_ride(max_num_batched_tokens=32)
    ride.add(1, prompt(33), 2)
    assert [rows(ride.step()) for _ in range(2)] == [{1: 28}, {1: 5}]
    ride.run()
    ride.add(2, prompt(33), 2)
    ride.run()
    assert cached_tokens(ride, 2) == 28


@given(
    priorities=st.lists(st.sampled_from(Priority), min_size=1, max_size=8),
    steps=st.integers(1, 12),
    preemptions=st.integers(1, 8),
)
@settings(max_examples=50, deadline=None)
def test_who_gives_way_keeps_its_tokens_and_its_place(
    priorities: list[Priority], steps: int, preemptions: int
) -> None:
    ride = Ride(num_blocks=64, reserve_tokens=16)
    sequences = [
        ride.add(request_id, prompt(9, salt=request_id), 12, priority=priority)[0]
        for request_id, priority in enumerate(priorities)
    ]
    for _ in range(steps):
        ride.step()
    youngest_first = sorted(
        ride.scheduler.running, key=lambda seq: (seq.request.priority, seq.request.request_id), reverse=True
    )
    for expected in youngest_first[:preemptions]:
        tokens = list(expected.token_ids)
        assert ride.scheduler.preempt() is expected
        assert (expected.status, expected.token_ids) == (Status.WAITING, tokens)
        assert not expected.block_table
        assert expected.num_computed_tokens == 0
        ride.scheduler.check_integrity()
    waiting = [ride.scheduler.queue.pop() for _ in range(len(ride.scheduler.queue))]
    assert [task and task.data for task in waiting] == [
        seq
        for seq in sorted(sequences, key=lambda seq: (seq.request.priority, seq.request.request_id))
        if seq.status is Status.WAITING
    ]
    for task in waiting:
        assert task is not None
        ride.scheduler.queue.requeue(task)
    ride.run()
    for request_id in range(len(priorities)):
        assert ride.text(request_id) == alone(prompt(9, salt=request_id), 12)
    ride.close()


def test_the_step_behind_one_in_flight_goes_on_with_what_that_one_draws(make_ride: MakeRide) -> None:
    ride = make_ride(block_size=4)
    ride.add(1, prompt(4), 20)
    ride.add(2, prompt(9, salt=1), 2)
    ride.add(3, prompt(6, salt=2), 20)
    step = scheduled(ride)
    ahead = ride.scheduler.schedule_ahead(step)
    assert rows(ahead) == {1: 1, 2: 1, 3: 1}
    assert ahead is not None
    assert ahead.batch.token_ids.tolist() == [in_flight(place) for place in range(3)]
    assert ahead.batch.past_lens.tolist() == [4, 9, 6]
    ride.finish(step)
    step = scheduled(ride)
    ahead = ride.scheduler.schedule_ahead(step)
    assert rows(ahead) == {1: 1, 3: 1}  # the second reaches its `max_tokens`
    assert ahead is not None
    assert ahead.batch.token_ids.tolist() == [in_flight(0), in_flight(2)]
    ride.finish(step)
    ride.run()


def test_what_is_not_decided_yet_is_not_scheduled_ahead(make_ride: MakeRide) -> None:
    ride = make_ride(max_num_seqs=2, max_num_batched_tokens=32)
    ride.add(1, prompt(40), 20)
    step = scheduled(ride)
    assert ride.scheduler.schedule_ahead(step) is None  # the rest of its prompt
    ride.finish(step)
    step = scheduled(ride)
    ride.add(2, prompt(6, salt=1), 3)
    assert ride.scheduler.schedule_ahead(step) is None  # who has a seat
    ride.finish(step)
    ride.step()
    ride.add(3, prompt(6, salt=2), 3)
    step = scheduled(ride)
    assert rows(ride.scheduler.schedule_ahead(step)) == {1: 1, 2: 1}  # nobody leaves a seat
    ride.finish(step)
    step = scheduled(ride)
    assert ride.scheduler.schedule_ahead(step) is None  # the second does
    ride.finish(step)
    ride.run()
    assert ride.text(1) == alone(prompt(40), 20)


def test_nobody_gives_way_to_a_step_ahead(make_ride: MakeRide) -> None:
    ride = make_ride(num_blocks=6, block_size=4, reserve_tokens=1)
    for request_id in (1, 2):
        ride.add(request_id, prompt(12, salt=request_id), 12)
    step = scheduled(ride)
    assert len(ride.scheduler.running) == 2
    assert ride.scheduler.schedule_ahead(step) is None
    assert len(ride.scheduler.running) == 2
    ride.finish(step)
    ride.run()
    assert ride.scheduler.num_preemptions > 0
    for request_id in (1, 2):
        assert ride.text(request_id) == alone(prompt(12, salt=request_id), 12)


class RandomRide(RuleBasedStateMachine):
    """Adds, cancels and steps in any order over a memory that is always too small.

    The ride checks every step; here the ends are checked: each sequence that was not cancelled ends exactly
    once with exactly the tokens that it gives alone, however often it was returned to the queue.
    """

    @initialize(
        memory=st.integers(52, 160),
        max_num_seqs=st.integers(1, 8),
        spare_tokens=st.integers(0, 28),
        reserve_tokens=st.integers(1, 16),
        block_size=st.sampled_from([1, 3, 4, 16]),
    )
    def start(
        self, memory: int, max_num_seqs: int, spare_tokens: int, reserve_tokens: int, block_size: int
    ) -> None:
        budget = max_num_seqs + block_size + spare_tokens
        num_blocks = -(-memory // block_size)
        self.ride = Ride(num_blocks, max_num_seqs, budget, reserve_tokens, block_size)
        self.live: dict[int, list[Sequence]] = {}
        self.added = 0

    @rule(
        length=st.integers(1, 30),
        salt=st.integers(0, 2),
        max_tokens=st.integers(1, 20),
        priority=st.sampled_from(Priority),
        n=st.integers(1, 3),
        reproducible=st.booleans(),
        stop=st.sampled_from([(), range(0, VOCAB_SIZE, 7)]),
        is_driving=st.booleans(),
    )
    def add(
        self,
        length: int,
        salt: int,
        max_tokens: int,
        priority: Priority,
        n: int,
        reproducible: bool,
        stop: Iterable[int],
        is_driving: bool,
    ) -> None:
        n = min(n, self.ride.config.max_num_seqs)
        params = SamplingParams(temperature=0, reproducible=reproducible)

        def add() -> None:
            self.live[self.added] = self.ride.add(
                self.added, prompt(length, salt), max_tokens, params, priority, n, stop
            )

        if is_driving:
            self.ride.steps_ahead(2, add, keep_last=False)
        else:
            add()
        self.added += 1

    @rule(count=st.integers(1, 6))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.ride.step()

    @rule(count=st.integers(1, 6), keep_last=st.booleans())
    def steps_ahead(self, count: int, keep_last: bool) -> None:
        self.ride.steps_ahead(count, keep_last=keep_last)

    @rule(data=st.data(), count=st.integers(0, 3), keep_last=st.booleans())
    def cancel(self, data: st.DataObject, count: int, keep_last: bool) -> None:
        if not self.live:
            return
        victims = self.live.pop(data.draw(st.sampled_from(sorted(self.live))))

        def remove() -> None:
            before = [seq for seq in self.ride.scheduler.running if seq not in victims]
            for seq in victims:
                self.ride.scheduler.remove(seq)
            assert self.ride.scheduler.running == before
            self.ride.scheduler.check_integrity()

        if count:
            self.ride.steps_ahead(count, remove, keep_last=keep_last)
        else:
            remove()

    def teardown(self) -> None:
        if not hasattr(self, "ride"):
            return
        self.ride.run()
        for request_id, sequences in self.live.items():
            request = sequences[0].request
            stop = sorted(request.stop_token_ids)
            expected = alone(request.prompt_ids, sequences[0].max_tokens, stop=stop)
            is_whole = len(expected) == sequences[0].max_tokens
            reason = FinishReason.LENGTH if is_whole else FinishReason.STOP
            for seq in sequences:
                outputs = self.ride.outputs[request_id, seq.index]
                assert [output.finish_reason for output in outputs if output.finish_reason] == [reason]
                assert outputs[-1].finish_reason
                assert self.ride.text(request_id, seq.index) == expected
                assert seq.status is Status.FINISHED
        self.ride.close()


RandomRide.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_random_rides = RandomRide.TestCase


def test_a_sequence_keeps_its_history_from_row_to_row(make_ride: MakeRide) -> None:
    [seq] = make_ride().add(1, prompt(6), 5)
    assert seq.sample(0).history is seq.sample(3).history is not None
