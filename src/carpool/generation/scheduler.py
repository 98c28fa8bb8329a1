"""Which sequences take part in the next step, with how many tokens, and what a step gave them."""

import asyncio
import sys
from bisect import insort
from itertools import chain

from carpool.inference_engine import InferenceTask, QueueManager
from carpool.runtimes.decoder import DecoderSpec, StepResult

from .block_manager import BlockManager
from .config import GenerationConfig, Mode
from .sequence import Sequence, SequenceOutput, Status
from .step import Step, build_step, build_step_ahead

_CHECKS_EVERYTHING = sys.flags.dev_mode


class Scheduler:
    """Continuous batching: sequences join and leave between any two steps (Yu et al., "Orca", OSDI 2022).

    A step has a token budget. Decoding sequences come first, with one token each, so a long prompt never
    stalls them; prompts share the rest in chunks (Agrawal et al., "Sarathi-Serve", OSDI 2024). A chunk ends
    on a block boundary or with the prompt. One that does not fit leaves a quarter of what it could take to
    those behind it, so that short prompts pass a long one; what they have no use for is its own again. Equal
    beginnings that arrive together are computed once: who finds its next block being computed in this step
    sits it out and takes it over.

    **Memory.** A sequence is admitted when memory for its tokens and `reserve_tokens` of output (fewer if it
    may generate fewer) can be promised to it; beyond that it takes block by block. When no block is left, the
    youngest sequence of the lowest priority returns to its old place in the queue, keeps its tokens and
    computes them again later, finding most of them in the prefix cache. So the oldest of the highest priority
    always goes on, and the head of the queue is never overtaken: nobody starves within a priority.

    In static mode sequences join an empty batch only, all in one go.
    """

    def __init__(self, spec: DecoderSpec, config: GenerationConfig, queue: QueueManager) -> None:
        self.config = config
        self.queue = queue
        self.blocks = BlockManager(spec.num_blocks, spec.block_size)
        self.running: list[Sequence] = []
        """In the order of `_rank`: the last one gives way first."""
        self.num_prompt_tokens = 0
        """Of all sequences that were admitted; this and the next three count since the start."""
        self.num_cached_tokens = 0
        """Those of them that were found in the prefix cache."""
        self.num_output_tokens = 0
        self.num_preemptions = 0
        self._closed = False
        """Nobody joins the sequences that run now."""

    @property
    def has_work(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.running) or len(self.queue) > 0

    def add(self, sequences: list[Sequence], future: asyncio.Future[None]) -> None:
        """Queue a request's sequences, all or, with `QueueFull`, none.

        The queue fails `future` when the deadline passes.
        """
        tasks = [self._new_task(seq, future) for seq in sequences]
        self.queue.put_together(tasks)
        for seq, task in zip(sequences, tasks, strict=True):
            seq.task = task

    def _new_task(self, seq: Sequence, future: asyncio.Future[None]) -> InferenceTask:
        request = seq.request
        cost = self.cost(len(seq.prompt_ids), min(seq.max_tokens, self.config.reserve_tokens))
        return InferenceTask(seq, future, request.priority, request.deadline, request.tenant, cost)

    def cost(self, num_prompt_tokens: int, num_output_tokens: int) -> float:
        """Work in decode rows, of which a full step has `max_num_seqs`; its prompt tokens count as much."""
        share = num_prompt_tokens / self.config.max_num_batched_tokens
        return share * self.config.max_num_seqs + num_output_tokens

    def remove(self, seq: Sequence) -> None:
        """End a sequence, wherever it is, and free what it owns; a step in flight goes on without it."""
        if seq.task is not None:
            self.queue.discard(seq.task)
            seq.task = None
        if seq.status is Status.RUNNING:
            self.running.remove(seq)
            self.blocks.free(seq)
        seq.status = Status.FINISHED

    def schedule(self) -> Step | None:
        """Choose the next step; None if nothing is left to do."""
        if self.config.mode is Mode.STATIC:
            self._fill_static_batch()
        rows = self._decode_rows()
        rows += self._prefill_rows(self.config.max_num_batched_tokens - len(rows))
        if rows:
            return build_step(rows)
        if self.has_work:
            raise RuntimeError("there is work, but no sequence can take part in a step")
        return None

    def schedule_ahead(self, step: Step) -> Step | None:
        """The step behind one in flight, as far as it is known without what that one draws.

        Its sequences go on, but for those that reach their `max_tokens`. None if there is something else to
        decide: prompts to compute, somebody to admit, memory to take away. The step may be thrown away; the
        blocks that sequences took for it stay theirs, for the step in its place.

        A sequence that ends otherwise takes part in vain. What that writes goes behind its full blocks, which
        others may share, and into blocks that are free by then before their next owner does.
        """
        present = [(seq, place) for place, seq in enumerate(step.sampled) if seq.status is Status.RUNNING]
        if len(present) < len(self.running):
            return None
        places = [(seq, place) for seq, place in present if len(seq.output_ids) + 1 < seq.max_tokens]
        if len(self.queue) > 0 and not self._closed and len(places) < self.config.max_num_seqs:
            return None
        if not places or not all(self.blocks.grow(seq, seq.num_tokens + 1) for seq, _ in places):
            return None
        return build_step_ahead(places)

    def postprocess(self, step: Step, result: StepResult) -> list[SequenceOutput]:
        """Account for a finished step: an output for every sequence that drew a token and was not removed."""
        for seq, count in step.rows:
            if seq.status is Status.RUNNING:
                seq.num_computed_tokens += count
                self.blocks.register(seq)
        outputs = []
        for seq, token_id, logprobs in zip(step.sampled, result.token_ids, result.logprobs, strict=True):
            if seq.status is not Status.RUNNING:
                continue
            reason = seq.append(token_id)
            kept = [] if token_id in seq.stop_ids else [token_id]
            self.num_output_tokens += len(kept)
            if reason is not None:
                self.remove(seq)
            outputs.append(seq.output(kept, None if logprobs is None else [logprobs][: len(kept)], reason))
        return outputs

    def check_idle(self) -> None:
        """Raise `RuntimeError` if memory is owned or promised although nothing runs.

        Constant time. In Python's development mode it is `check_integrity`, too, which takes up to half a
        microsecond for each block.
        """
        self.blocks.check_idle()
        if _CHECKS_EVERYTHING:
            self.check_integrity()

    def check_integrity(self) -> None:
        """Raise `RuntimeError` if blocks are lost, owned twice, or promised in vain."""
        self.blocks.check_integrity(self.running)

    # Decoding ------------------------------------------------------------------------------------------

    def _decode_rows(self) -> list[tuple[Sequence, int]]:
        rows = []
        position = 0
        while position < len(self.running):  # which gets shorter from its end
            seq = self.running[position]
            position += 1
            if not seq.num_prefill_tokens and self._grow(seq):
                rows.append((seq, 1))
        return rows

    def _grow(self, seq: Sequence) -> bool:
        """Find memory for the sequence's next token; False if it had to give way itself."""
        while not self.blocks.grow(seq, seq.num_computed_tokens + 1):
            if self.preempt() is seq:
                return False
        return True

    def preempt(self) -> Sequence:
        """Return the youngest sequence of the lowest priority to the queue, without its memory."""
        victim = self.running.pop()
        self.blocks.free(victim)
        victim.status = Status.WAITING
        victim.num_preemptions += 1
        self.num_preemptions += 1
        self.queue.requeue(_task(victim))
        return victim

    # Prefilling ----------------------------------------------------------------------------------------

    def _prefill_rows(self, budget: int) -> list[tuple[Sequence, int]]:
        rows = []
        being_computed = set()
        prefilling = [seq for seq in self.running if seq.num_prefill_tokens]
        for position, seq in enumerate(chain(prefilling, iter(self._admit, None)), start=1):
            self._count_cached(seq, self.blocks.match(seq))
            next_key = self.blocks.next_key(seq)
            others_wait = position < len(prefilling) or (self._has_seat and len(self.queue) > 0)
            count = 0 if next_key in being_computed else self._chunk(seq, budget, others_wait)
            if count:
                rows.append((seq, count))
                budget -= count
                if next_key is not None and count >= self.blocks.block_size:
                    being_computed.add(next_key)
            if not budget:
                break
        rows = self._with_rest(rows, budget)
        for seq, count in rows:
            if not self.blocks.grow(seq, seq.num_computed_tokens + count):
                raise RuntimeError("a promised KV block is missing")
        return rows

    def _with_rest(self, rows: list[tuple[Sequence, int]], rest: int) -> list[tuple[Sequence, int]]:
        """The rows with what is left of the budget: who sits a step out has no use for its quarter."""
        longer = []
        for seq, count in rows:
            with_rest = self._chunk(seq, count + rest, others_wait=False)
            rest -= with_rest - count
            longer.append((seq, with_rest))
        return longer

    def _chunk(self, seq: Sequence, budget: int, others_wait: bool) -> int:
        """How many tokens a sequence may compute now."""
        missing, block_size = max(seq.num_prefill_tokens, 1), self.blocks.block_size
        share = budget - budget // 4 if others_wait else budget
        if missing <= share:  # the end of its prompt
            return missing
        count = share - share % block_size
        if not count and budget >= block_size:  # at the cost of the others: the oldest always goes on
            count = min(missing, block_size)
        if missing - count == 1:  # one token is never computed alone, see `BlockManager.match`
            count = missing if missing <= budget else count - block_size
        return count

    def _admit(self) -> Sequence | None:
        """Let the head of the queue run if there is a seat and memory for it."""
        if not self._has_seat or (task := self.queue.pop()) is None:
            return None
        seq: Sequence = task.data
        expected = seq.max_tokens - len(seq.output_ids)
        if self.config.mode is Mode.CONTINUOUS:
            expected = min(expected, self.config.reserve_tokens)
        if not self.blocks.admit(seq, seq.num_tokens + expected - 1):  # the last token is not fed back
            self.queue.requeue(task)
            return None
        seq.status = Status.RUNNING
        insort(self.running, seq, key=_rank)
        if not seq.num_preemptions:
            self.num_prompt_tokens += len(seq.prompt_ids)
        self._count_cached(seq, seq.num_computed_tokens)
        return seq

    def _fill_static_batch(self) -> None:
        self._closed = bool(self.running)
        while self._admit() is not None:
            pass
        self._closed = True

    @property
    def _has_seat(self) -> bool:
        return not self._closed and len(self.running) < self.config.max_num_seqs

    def _count_cached(self, seq: Sequence, num_tokens: int) -> None:
        if not seq.num_preemptions:  # later it finds its own tokens
            seq.num_cached_tokens += num_tokens
            self.num_cached_tokens += num_tokens


def _task(seq: Sequence) -> InferenceTask:
    if seq.task is None:
        raise RuntimeError("the sequence was never queued")
    return seq.task


def _rank(seq: Sequence) -> tuple[int, int]:
    """Priority, then arrival."""
    task = _task(seq)
    return task.priority, task.sequence
