"""The unfinished requests, and the way of every output to its receiver."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from carpool.errors import CarpoolError, DeadlineExceeded
from carpool.inference_engine import QueueFull

from .metrics import EngineMetrics
from .scheduler import Scheduler
from .sequence import FinishReason, Sequence, SequenceOutput

logger = logging.getLogger(__name__)

OnStep = Callable[[list[SequenceOutput]], object]


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """A request with its sequences by index that have not ended."""

    future: asyncio.Future[None]
    """Done when the last one has ended; failed by the queue when the deadline passes."""
    sequences: dict[int, Sequence]


class Delivery:
    """Sees to it that every sequence ends exactly once, whatever ends it.

    An output with a finish reason takes its sequence off the list before the receiver hears of it; who is not
    on the list cannot be ended again.
    """

    def __init__(self, scheduler: Scheduler, metrics: EngineMetrics, on_step: OnStep) -> None:
        self.idle = asyncio.Event()
        """Set while no request is unfinished."""
        self.idle.set()
        self._scheduler = scheduler
        self._metrics = metrics
        self._on_step = on_step
        self._unfinished: dict[int, _Unfinished] = {}

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._unfinished

    def open(self, request_id: int, sequences: list[Sequence]) -> None:
        """Queue a request's sequences, all or, with `QueueFull`, none."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._scheduler.add(sequences, future)
        except QueueFull:
            future.cancel()
            raise
        self._unfinished[request_id] = _Unfinished(future, dict(enumerate(sequences)))
        future.add_done_callback(partial(self._expire, request_id))
        self.idle.clear()

    def cancel(self, request_id: int, index: int | None = None) -> None:
        """End a request, or one of its choices, as `cancelled`; does nothing if it has ended."""
        if request_id in self._unfinished:
            sequences = self._unfinished[request_id].sequences.values()
            self._end([seq for seq in sequences if index in (None, seq.index)], FinishReason.CANCELLED)

    def fail(self, request_ids: Iterable[int], error: CarpoolError) -> None:
        """End whole requests with an error; those that have ended are left alone."""
        requests = [self._unfinished[request_id] for request_id in set(request_ids) & self._unfinished.keys()]
        sequences = [seq for request in requests for seq in request.sequences.values()]
        self._end(sequences, FinishReason.ERROR, error)

    def fail_all(self, error: CarpoolError) -> None:
        """End every request with an error."""
        self.fail(list(self._unfinished), error)

    def abandon(self, error: CarpoolError) -> None:
        """As `fail_all`, when the scheduler can no longer be relied on."""
        requests = self._unfinished.values()
        sequences = [seq for request in requests for seq in request.sequences.values()]
        self.deliver([seq.output([], None, FinishReason.ERROR, error) for seq in sequences])

    def deliver(self, outputs: list[SequenceOutput]) -> None:
        """Hand outputs over, all in one call."""
        for output in outputs:
            if output.finish_reason is not None:
                self._forget(output.request_id, output.index)
        self._metrics.update()
        if outputs:
            try:
                self._on_step(outputs)
            except Exception:
                logger.exception("the receiver of the engine's outputs failed")
        if not self._unfinished:
            self.idle.set()

    def _end(
        self, sequences: list[Sequence], reason: FinishReason, error: CarpoolError | None = None
    ) -> None:
        for seq in sequences:
            self._scheduler.remove(seq)
        self.deliver([seq.output([], None, reason, error) for seq in sequences])

    def _forget(self, request_id: int, index: int) -> None:
        request = self._unfinished[request_id]
        del request.sequences[index]
        if not request.sequences:
            del self._unfinished[request_id]
            if not request.future.done():
                request.future.set_result(None)

    def _expire(self, request_id: int, future: asyncio.Future[None]) -> None:
        """A request's future is done: by its deadline, or because the request has ended."""
        expired = not future.cancelled() and future.exception() is not None
        request = self._unfinished.get(request_id)
        if expired and request is not None and request.future is future:
            self.fail([request_id], DeadlineExceeded("The deadline passed before the answer was complete"))
