"""An engine over the simulated decoder, and the receiver of what it hands out."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from carpool.generation import (
    FinishReason,
    GenerationConfig,
    GenerationEngine,
    GenerationRequest,
    SequenceOutput,
)
from carpool.inference_engine import DeviceGate
from carpool.runtimes.decoder import DecoderRuntime, SamplingParams, StepBatch
from carpool.telemetry import Registry
from tests.unit.generation.fake_clock import FakeClock
from tests.unit.generation.simulated_decoder import GREEDY, SimulatedDecoder

CONFIG = GenerationConfig(max_num_seqs=32, max_num_batched_tokens=64, reserve_tokens=16)

Key = tuple[int, int]


class Receiver:
    """An `on_step` that keeps everything and lets a test wait for events instead of time."""

    def __init__(self) -> None:
        self.calls: list[list[SequenceOutput]] = []
        self.outputs: dict[Key, list[SequenceOutput]] = {}
        self._changed = asyncio.Event()

    def __call__(self, outputs: list[SequenceOutput]) -> None:
        self.calls.append(outputs)
        for output in outputs:
            self.outputs.setdefault((output.request_id, output.index), []).append(output)
        self._changed.set()

    async def tokens(self, request_id: int, count: int, index: int = 0) -> None:
        """Wait until a sequence has so many tokens."""
        while len(self.text(request_id, index)) < count:
            await self._change()

    async def end(self, request_id: int, index: int = 0) -> SequenceOutput:
        """Wait for a sequence's last output."""
        while not (outputs := self.outputs.get((request_id, index))) or outputs[-1].finish_reason is None:
            await self._change()
        return outputs[-1]

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def text(self, request_id: int, index: int = 0) -> list[int]:
        return [token for output in self.outputs.get((request_id, index), []) for token in output.token_ids]

    def endings(self) -> dict[Key, list[FinishReason]]:
        """Every finish reason of every sequence; exactly one each if all is well."""
        return {
            key: [output.finish_reason for output in outputs if output.finish_reason is not None]
            for key, outputs in self.outputs.items()
        }


class Barrier:
    """Holds a decoder's steps from one on until they are released, so that a test acts while one runs."""

    def __init__(self, step: int = 1) -> None:
        self.entered = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._steps_before = step - 1
        self._released = threading.Event()

    def __call__(self, batch: StepBatch) -> None:
        if self._steps_before:
            self._steps_before -= 1
            return
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self._released.wait(timeout=30)

    def release(self) -> None:
        self._released.set()


class Trip:
    """A running engine with everything around it."""

    def __init__(
        self, runtime: DecoderRuntime, config: GenerationConfig, gate: DeviceGate | None = None
    ) -> None:
        self.clock = FakeClock()
        self.receiver = Receiver()
        self.registry = Registry()
        self.engine = GenerationEngine(
            runtime,
            config,
            gate or DeviceGate(),
            self.receiver,
            name="simulated",
            registry=self.registry,
            clock=self.clock,
        )

    def submit(
        self,
        request_id: int,
        prompt_ids: Sequence[int],
        max_tokens: int | None = 8,
        *,
        params: SamplingParams = GREEDY,
        n: int = 1,
        deadline: float | None = None,
    ) -> None:
        self.engine.submit(
            GenerationRequest(
                request_id=request_id,
                prompt_ids=prompt_ids,
                max_tokens=max_tokens,
                params=params,
                n=n,
                deadline=deadline,
            )
        )

    def metric(self, name: str) -> float:
        """The sum of a metric's values."""
        return sum(
            series.value
            for metric in self.registry.snapshot()
            if metric.name == name
            for series in metric.series
        )


@asynccontextmanager
async def trip(
    decoder: DecoderRuntime | None = None, config: GenerationConfig = CONFIG, gate: DeviceGate | None = None
) -> AsyncIterator[Trip]:
    """A trip that is stopped at the end, and must leave no block behind."""
    journey = Trip(decoder or SimulatedDecoder(num_blocks=512), config, gate)
    async with journey.engine:
        yield journey
    assert journey.metric("carpool_kv_blocks_used") == 0
    scheduler = journey.engine._scheduler
    scheduler.check_idle()
    scheduler.check_integrity()
    assert all(len(reasons) == 1 for reasons in journey.receiver.endings().values())
