"""A scheduler, its queue and a simulated decoder, driven by hand."""

import asyncio
from collections.abc import Callable, Iterable

from carpool.generation import GenerationConfig, GenerationRequest, SequenceOutput
from carpool.generation.block_manager import REPRODUCIBLE_ROOT, SHARED_ROOT
from carpool.generation.request import check
from carpool.generation.scheduler import Scheduler
from carpool.generation.sequence import Sequence
from carpool.generation.step import Step
from carpool.inference_engine import EngineConfig, Priority, QueueManager
from carpool.runtimes.decoder import SamplingParams, StepResult
from tests.unit.generation.fake_clock import FakeClock
from tests.unit.generation.simulated_decoder import GREEDY, VOCAB_SIZE, SimulatedDecoder


def prompt(length: int, salt: int = 0) -> list[int]:
    """Token ids; the same beginning for the same salt."""
    return [(i * 31 + salt * 7 + 3) % VOCAB_SIZE for i in range(length)]


class Ride:
    """Every step is checked: its budget, its tokens (by the decoder) and the ownership of blocks."""

    def __init__(
        self,
        num_blocks: int = 64,
        max_num_seqs: int = 8,
        max_num_batched_tokens: int = 32,
        reserve_tokens: int = 8,
        block_size: int = 4,
    ) -> None:
        self.decoder = SimulatedDecoder(num_blocks, block_size)
        self.config = GenerationConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            reserve_tokens=reserve_tokens,
        )
        self.loop = asyncio.new_event_loop()  # for futures; it never runs
        queue = QueueManager(EngineConfig(max_batch_size=max_num_seqs), clock=FakeClock())
        self.scheduler = Scheduler(self.decoder.spec, self.config, queue)
        self.outputs: dict[tuple[int, int], list[SequenceOutput]] = {}

    def add(
        self,
        request_id: int,
        prompt_ids: list[int],
        max_tokens: int,
        params: SamplingParams = GREEDY,
        priority: Priority = Priority.INTERACTIVE,
        n: int = 1,
        stop: Iterable[int] = (),
    ) -> list[Sequence]:
        request = GenerationRequest(
            request_id=request_id,
            prompt_ids=prompt_ids,
            max_tokens=max_tokens,
            params=params,
            priority=priority,
            n=n,
            stop_token_ids=frozenset(stop),
        )
        limit = check(request, self.decoder.spec, max_n=self.config.max_num_seqs)
        root = REPRODUCIBLE_ROOT if params.reproducible else SHARED_ROOT
        sequences = [Sequence(request, index, limit, root) for index in range(n)]
        for seq in sequences:
            self.scheduler.add([seq], self.loop.create_future())
        return sequences

    def schedule(self) -> Step | None:
        step = self.scheduler.schedule()
        self.scheduler.check_integrity()
        if step is not None:
            assert len(step.batch.token_ids) <= self.config.max_num_batched_tokens
            assert len(self.scheduler.running) <= self.config.max_num_seqs
        return step

    def finish(self, step: Step) -> None:
        self._take(step, self.decoder.launch(step.batch).result())

    def _take(self, step: Step, result: StepResult) -> None:
        for output in self.scheduler.postprocess(step, result):
            self.outputs.setdefault((output.request_id, output.index), []).append(output)
        self.scheduler.check_integrity()

    def steps_ahead(
        self, count: int, meanwhile: Callable[[], object] = lambda: None, *, keep_last: bool = True
    ) -> None:
        """A step and up to `count` behind it, each launched before the tokens of the one before are taken.

        `meanwhile` is called when the last of them is scheduled, before it is launched or, without
        `keep_last`, thrown away.
        """
        step = self.schedule()
        if step is None:
            meanwhile()
            return
        handle = self.decoder.launch(step.batch)
        for number in range(1, count + 1):
            ahead = self.scheduler.schedule_ahead(step)
            self.scheduler.check_integrity()
            is_last = number == count or ahead is None
            if is_last:
                meanwhile()
            result = handle.result()
            if ahead is None or (is_last and not keep_last):
                self._take(step, result)
                return
            handle = self.decoder.launch(ahead.batch)
            self._take(step, result)
            step = ahead
        self._take(step, handle.result())

    def step(self) -> Step | None:
        step = self.schedule()
        if step is not None:
            self.finish(step)
        return step

    def run(self) -> int:
        """Step until nothing is left; returns the number of steps."""
        steps = 0
        while self.step() is not None:
            steps += 1
        assert not self.scheduler.has_work
        assert self.scheduler.blocks.num_used == 0
        return steps

    def text(self, request_id: int, index: int = 0) -> list[int]:
        return [token for output in self.outputs[request_id, index] for token in output.token_ids]

    def close(self) -> None:
        self.loop.close()
