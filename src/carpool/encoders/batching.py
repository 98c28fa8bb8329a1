"""What embedder and reranker have in common: all calls' inputs in one queue."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from carpool.errors import CarpoolError
from carpool.inference_engine import BatchEvent, DeviceGate, EngineConfig, InferenceEngine, Priority
from carpool.runtimes.encoder import BatchRuntime
from carpool.telemetry import Registry

from .config import EncoderConfig
from .metrics import EncoderMetrics

Item = TypeVar("Item")

_SLICE = 64
"""Inputs of a large call that are handled before the event loop gets a chance to do something else."""

_SORTED_FROM = 80
"""Tokens. Shorter inputs that share rows keep the call's order, as mixed lengths fill rows. Longer ones
rarely fit together, so they go by length: documents of 150 to 220 words are embedded 16 % faster for it."""


class EncoderBatches(Generic[Item]):
    """Calls of any number of items on the batching core.

    `compute`, of the runtime, takes a batch and returns one float32 row for each item. `gate` is the device's
    gate if other models share it.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], NDArray[np.float32]],
        runtime: BatchRuntime,
        config: EncoderConfig,
        *,
        name: str,
        gate: DeviceGate | None,
        registry: Registry | None,
    ) -> None:
        self.finished = 0
        """Batches finished; failed ones do not count."""
        self._metrics = EncoderMetrics(registry or Registry(), name, runtime.computed_tokens)
        self._runtime = runtime
        self._engine: InferenceEngine[Item, NDArray[np.float32]] = InferenceEngine(
            compute,
            EngineConfig(
                max_batch_size=config.max_batch_size,
                max_batch_cost=config.max_batch_tokens,
                padded=runtime.pads,
                batch_wait_ms=config.batch_wait_ms,
                max_queue_ms=config.max_queue_ms,
                bulk_slice_ms=config.bulk_slice_ms,
                weight=config.weight,
            ),
            concurrency=runtime.concurrency,
            gate=gate,
            name=name,
            observe=self._on_batch,
        )

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return len(self._engine.queue)

    @property
    def has_work(self) -> bool:
        """Whether items wait or are with the model."""
        return self._engine.has_work

    @property
    def healthy(self) -> bool:
        """False once the loop that takes batches has failed."""
        return self._engine.healthy

    @property
    def config(self) -> EngineConfig:
        """The engine's; assign another one at any time, it holds from the next batch on."""
        return self._engine.config

    @config.setter
    def config(self, config: EngineConfig) -> None:
        self._engine.config = config

    def start(self) -> None:
        """Start on the running event loop."""
        self._engine.start()

    async def stop(self, *, drain: bool = True) -> None:
        """Refuse new items, finish those that wait (without `drain`: only the batch that runs), and end."""
        await self._engine.stop(drain=drain)

    async def run(
        self,
        items: Sequence[Item],
        lengths: Sequence[int],
        *,
        priority: Priority,
        deadline: float | None,
        tenant: str,
        name: Callable[[int], str],
    ) -> NDArray[np.float32]:
        """The rows of the items, in their order; `lengths` are theirs in tokens.

        Whatever goes wrong with one item ends the call: when it fails or is cancelled, none of its items that
        still wait are computed. Raises as `InferenceEngine.submit`, and `CarpoolError` for a row that is no
        numbers, with what `name` calls its item.
        """
        sorted_from = 0 if self._runtime.pads else _SORTED_FROM
        order = sorted(range(len(lengths)), key=lambda index: max(sorted_from, lengths[index]))
        futures: list[asyncio.Future[NDArray[np.float32]]] = []
        try:
            for count, index in enumerate(order, 1):
                futures.append(
                    self._engine.enqueue(
                        items[index],
                        priority=priority,
                        deadline=deadline,
                        tenant=tenant,
                        cost=lengths[index],
                    )
                )
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
            rows = await asyncio.gather(*futures)
        finally:
            for future in futures:
                future.cancel()
        result = np.empty((len(rows), *rows[0].shape), np.float32)
        for count, (index, row) in enumerate(zip(order, rows, strict=True), 1):
            result[index] = row
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        if not np.isfinite(result).all():
            index = int(np.isfinite(result).all(axis=1).argmin())
            raise CarpoolError(f"The model computed something that is not a number for {name(index)}")
        return result

    def _on_batch(self, event: BatchEvent) -> None:
        self.finished += not event.failed
        self._metrics.finished(event, self.waiting, self._runtime.computed_tokens)
