"""The loop that turns requests into tokens."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

from carpool.errors import (
    CarpoolError,
    Draining,
    InvalidRequest,
    Overloaded,
    StartError,
    Unavailable,
)
from carpool.inference_engine import (
    Clock,
    DeviceGate,
    EngineConfig,
    MonotonicClock,
    Priority,
    QueueFull,
    QueueManager,
    Turn,
)
from carpool.inference_engine.wakeup import Wakeup
from carpool.runtimes.decoder import DecoderRuntime, DecoderSpec, StepHandle, StepResult
from carpool.telemetry import Registry

from .block_manager import REPRODUCIBLE_ROOT, SHARED_ROOT
from .config import GenerationConfig
from .delivery import Delivery, OnStep
from .metrics import EngineMetrics
from .request import GenerationRequest, check
from .scheduler import Scheduler
from .sequence import Sequence, Status
from .step import Step, advance_grammars, compute_masks

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 0.02
"""How long a first step waits for requests whose prompts are being prepared."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Launched:
    """A step on the device."""

    step: Step
    handle: StepHandle
    at: float
    """Clock seconds."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """What came of a step."""

    result: StepResult
    seconds: float
    """From its launch to its tokens."""
    behind: _Launched | None
    """The step that runs now."""
    error: Exception | None
    """Why the step that was to be launched behind it was not."""


class GenerationEngine:
    """Continuous batching over one decoder, on one event loop and a thread.

    The thread computes the masks of grammars, waits for the forward pass, draws, and launches the next one if
    it is known (`_draw_and_launch`); anything else is done on the loop. They take turns: between two calls of
    the thread the loop accounts for the tokens. While the thread works, the loop may change the states of
    sequences and `_ahead`, which the thread looks at once, just before it launches.

    `on_step` gets all outputs of a step in one call, and those of a cancellation, a missed deadline or a
    failure when it happens. It is called on the loop and must not block. It never runs inside `submit`.

    An error in a step ends the requests that took part in it, nothing else. An error in the engine itself
    ends all requests and the engine. `healthy` is False from then on, and after `max_step_failures` failed
    steps in a row, until one succeeds.
    """

    def __init__(
        self,
        runtime: DecoderRuntime,
        config: GenerationConfig,
        gate: DeviceGate,
        on_step: OnStep,
        *,
        name: str,
        registry: Registry,
        clock: Clock | None = None,
    ) -> None:
        spec = runtime.spec
        _check_step(config, spec)
        self.name = name
        self._config = config
        self.steps = 0
        """Steps that succeeded."""
        self._runtime = runtime
        self._gate = gate
        self._clock = clock or MonotonicClock()
        self._queue = QueueManager(_queue_config(config), clock=self._clock)
        self._scheduler = Scheduler(spec, config, self._queue)
        self._metrics = EngineMetrics(registry, name, self._scheduler)
        self._delivery = Delivery(self._scheduler, self._metrics, on_step)
        self._num_accepted = 0
        self._num_expected = 0
        self._failures_in_a_row = 0
        self._launched: _Launched | None = None
        """The step in flight."""
        self._ahead: Step | None = None
        """The step behind it, if it is known; the loop takes it away when something comes between."""
        self._refusal: Callable[[], CarpoolError] | None = None
        self._stopping = False
        self._wake = Wakeup(self._clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-step")
        self._loop: asyncio.Task[None] | None = None

    # Life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start serving, on the running event loop."""
        self._loop = asyncio.create_task(self._run(), name=f"generation {self.name}")

    async def drain(self) -> None:
        """Refuse new requests, and return when those accepted have ended."""
        self._refusal = self._refusal or partial(Draining, f"{self.name} is shutting down")
        await self._delivery.idle.wait()

    async def stop(self) -> None:
        """End every request with `Draining` and the loop after the step in flight. The runtime stays open."""
        self._refusal = self._refusal or partial(Draining, f"{self.name} is shutting down")
        self._delivery.fail_all(self._refusal())
        self._stopping = True
        self._wake.notify()
        if self._loop is not None:
            await self._loop
        self._thread.shutdown()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def config(self) -> GenerationConfig:
        """The bounds in force; assign another one at any time, it holds from the next step on.

        Sequences that run stay in, however many they are. Assigning raises `StartError` for a step that is
        too small for its sequences.
        """
        return self._config

    @config.setter
    def config(self, config: GenerationConfig) -> None:
        _check_step(config, self._runtime.spec, len(self._scheduler.running))
        self._config = self._scheduler.config = config
        self._queue.config = _queue_config(config)
        self._ahead = None
        self._wake.notify()

    @property
    def has_work(self) -> bool:
        """Whether a step is due or running, also one whose requests have all ended meanwhile."""
        return self._launched is not None or self._scheduler.has_work

    @property
    def healthy(self) -> bool:
        """Whether steps succeed."""
        return self._failures_in_a_row < self.config.max_step_failures

    # Requests ------------------------------------------------------------------------------------------

    def submit(self, request: GenerationRequest) -> None:
        """Accept a request; its outputs go to `on_step`.

        Raises `ContextLengthExceeded` and `InvalidRequest` for what can never run, `Overloaded` if the queue
        is full, `Draining` after `drain` and `stop`, `Unavailable` if the engine is broken.
        """
        if self._refusal is not None:
            raise self._refusal()
        if request.request_id in self._delivery:
            raise InvalidRequest(f"request id {request.request_id} is in use")
        max_tokens = check(request, self._runtime.spec, max_n=self.config.max_num_seqs)
        self._num_accepted += 1
        prefix_root = REPRODUCIBLE_ROOT if request.params.reproducible else SHARED_ROOT
        if not self.config.prefix_cache:
            prefix_root = -self._num_accepted
        sequences = [Sequence(request, i, max_tokens, prefix_root) for i in range(request.n)]
        try:
            self._delivery.open(request.request_id, sequences)
        except QueueFull as error:
            raise Overloaded(
                f"{self.name} has too much work waiting", retry_after_s=max(error.retry_after_s, 1.0)
            ) from error
        self._ahead = None
        self._wake.notify()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While the prompt of a request is being prepared, an engine that runs nothing waits for it a moment.

        Requests that come together start in one step then. Else the first of them would take a step for
        itself, and the others wait for it. Nobody is waited for whom there is no seat.
        """
        self._num_expected += 1
        try:
            yield
        finally:
            self._num_expected -= 1
            self._wake.notify()

    def cancel(self, request_id: int, index: int | None = None) -> None:
        """End a request, or one of its choices, as `cancelled`; does nothing if it has ended."""
        self._delivery.cancel(request_id, index)

    # The loop ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while await self._work():
                async with self._gate.turn(
                    self.name, weight=self.config.weight, urgency=self._urgency
                ) as turn:
                    await self._run_steps(turn)
        except Exception:
            logger.exception("the generation engine of %s is broken", self.name)
            self._failures_in_a_row = self.config.max_step_failures
            self._refusal = partial(Unavailable, f"{self.name} failed and is being restarted")
            self._delivery.abandon(self._refusal())

    async def _work(self) -> bool:
        """Wait for something to do; False once stopped."""
        if not self._scheduler.has_work:
            self._scheduler.check_idle()
            await self._until(lambda: self._scheduler.has_work)
        if not self._scheduler.running:
            await self._until(lambda: not self._company_comes, self._clock.time() + _LONGEST_WAIT_S)
        head = None if self._scheduler.running else self._queue.peek()
        if head is not None and self.config.admission_window_ms:
            leave_at = head.arrival + self.config.admission_window_ms / 1e3
            await self._until(lambda: not self._has_seat_for_more, leave_at)
        return not self._stopping

    @property
    def _has_seat_for_more(self) -> bool:
        """Whether a first step has something to do, and room for others."""
        return 0 < len(self._queue) < self.config.max_num_seqs

    @property
    def _company_comes(self) -> bool:
        return self._num_expected > 0 and self._has_seat_for_more

    async def _until(self, condition: Callable[[], bool], give_up_at: float = math.inf) -> None:
        while not (condition() or self._stopping or self._clock.time() >= give_up_at):
            await self._wake.wait(None if give_up_at == math.inf else give_up_at)

    async def _run_steps(self, turn: Turn) -> None:
        """A step, and as many behind it as can be launched ahead."""
        try:
            await self._launch_next()
            while self._launched is not None:
                await self._complete(self._launched)
                if self._launched is not None:
                    turn.go_on(self.config.weight)
        finally:
            if self._launched is not None:  # a fault of the engine; nobody else may have the device yet
                with suppress(Exception):
                    await self._in_thread(self._launched.handle.result)
                self._launched = None

    async def _launch_next(self) -> None:
        """Schedule and launch a step, if there is something to do.

        It is launched from here, as the device would start later after a change to the engine's thread.
        """
        step = self._scheduler.schedule()
        if step is None:
            return
        try:
            self._launched = self._launch(step)
        except Exception as error:
            await self._fail_step(step, error)

    async def _complete(self, launched: _Launched) -> None:
        """Wait for the step in flight and hand its tokens out.

        The step behind it is scheduled while it runs, and the engine's thread launches that one as soon as
        this one's tokens are drawn: the device does not wait for this loop.
        """
        step = launched.step
        ahead = self._ahead = self._scheduler.schedule_ahead(step)
        try:
            finished = await self._in_thread(self._draw_and_launch, launched)
        except Exception as error:
            self._launched = None
            await self._fail_step(step, error)
            return
        finally:
            self._ahead = None
        self._launched = finished.behind
        self.steps += 1
        self._failures_in_a_row = 0
        self._metrics.finished(step, finished.seconds)
        cost = self._scheduler.cost(len(step.batch.token_ids) - step.num_decodes, step.num_decodes)
        self._queue.cost_model.observe(cost, cost, finished.seconds * 1e3)
        self._fail_unusable(step, finished.result)
        self._fail_unmatched(step)
        self._delivery.deliver(self._scheduler.postprocess(step, finished.result))
        if finished.error is not None and ahead is not None:
            await self._fail_step(ahead, finished.error)

    async def _fail_step(self, step: Step, error: Exception) -> None:
        """End the requests of a step that failed."""
        logger.error("a step of %s failed", self.name, exc_info=error)
        self._failures_in_a_row += 1
        self._metrics.failed()
        concerned = [seq.request.request_id for seq, _ in step.rows if seq.status is Status.RUNNING]
        failure = CarpoolError(f"{self.name} failed while it worked on this request")
        self._delivery.fail(concerned, failure)
        await asyncio.sleep(0)  # a launch that fails waits for nothing, and others want the loop

    def _in_thread(self, work: Callable[..., _Result], *arguments: object) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _launch(self, step: Step) -> _Launched:
        at = self._clock.time()
        return _Launched(step, self._runtime.launch(step.batch), at)

    def _draw_and_launch(self, launched: _Launched) -> _Finished:
        """In the thread: wait for a step, and launch the one behind it."""
        step = launched.step
        try:
            compute_masks(step)  # while the device works
        finally:
            result = launched.handle.result()
        seconds = self._clock.time() - launched.at
        if not len(result.token_ids) == len(result.logprobs) == len(step.sampled):
            raise RuntimeError(f"{len(step.sampled)} samples asked for, {len(result.token_ids)} drawn")
        advance_grammars(step, result)
        ahead = self._ahead
        if ahead is None or self._gate.waiting or not self._is_wanted(ahead, step, result):
            return _Finished(result, seconds, behind=None, error=None)
        try:
            return _Finished(result, seconds, self._launch(ahead), error=None)
        except Exception as error:
            return _Finished(result, seconds, behind=None, error=error)

    def _is_wanted(self, ahead: Step, step: Step, result: StepResult) -> bool:
        """Whether a sequence of the step ahead goes on; or all do, if somebody waits for a place."""
        unusable = {step.sampled[place] for place in result.unusable}
        drawn = dict(zip(step.sampled, result.token_ids, strict=True))
        go_on = [
            seq.status is Status.RUNNING
            and seq not in unusable
            and drawn[seq] not in seq.stop_ids
            and (seq.matcher is None or not seq.matcher.is_over)
            for seq in ahead.sampled
        ]
        return all(go_on) if len(self._queue) else any(go_on)

    def _fail_unusable(self, step: Step, result: StepResult) -> None:
        """End the requests that the model found no numbers for, and leave their companions alone."""
        for place in result.unusable:
            if step.sampled[place].status is not Status.RUNNING:
                continue
            request_id = step.sampled[place].request.request_id
            logger.error("%s gave no numbers for a token of request %d", self.name, request_id)
            error = CarpoolError(f"{self.name} computed something that is not a number for this request")
            self._delivery.fail([request_id], error)

    def _fail_unmatched(self, step: Step) -> None:
        """End the requests whose grammar got too complex, and leave their companions alone."""
        for seq in step.sampled:
            if seq.matcher is None or seq.status is not Status.RUNNING:
                continue
            if seq.matcher.error is not None:
                error = InvalidRequest(f"The grammar cannot be followed any further: {seq.matcher.error}")
                self._delivery.fail([seq.request.request_id], error)

    def _urgency(self) -> tuple[Priority, float | None]:
        """The highest priority and the earliest deadline of what the next step may include."""
        tasks = [seq.task for seq in self._scheduler.running] + [self._queue.peek()]
        present = [task for task in tasks if task is not None]
        deadlines = [task.deadline for task in present if task.deadline is not None]
        return min((task.priority for task in present), default=Priority.IDLE), min(deadlines, default=None)


def _check_step(config: GenerationConfig, spec: DecoderSpec, running: int = 0) -> None:
    """Raise `StartError` if a full batch leaves no room for a chunk of a prompt in the step."""
    at_least = max(config.max_num_seqs, running) + spec.block_size
    if config.max_num_batched_tokens < at_least:
        raise StartError(
            f"max_num_batched_tokens must be at least max_num_seqs plus a KV block, here "
            f"{at_least}, not {config.max_num_batched_tokens}",
            param="max_num_batched_tokens",
        )


def _queue_config(config: GenerationConfig) -> EngineConfig:
    return EngineConfig(
        max_batch_size=config.max_num_seqs,
        max_batch_cost=config.max_num_seqs,  # a task's cost is the steps it takes part in
        padded=False,
        max_queue_ms=config.max_queue_ms,
        max_queue_items=config.max_queue_seqs,
    )
