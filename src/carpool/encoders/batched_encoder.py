"""The life of an encoder whose calls share batches, whatever it computes."""

from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from carpool.inference_engine import DeviceGate, EngineConfig
from carpool.runtimes.encoder import BatchRuntime, EncoderSpec
from carpool.telemetry import Registry

from .batching import EncoderBatches
from .config import EncoderConfig

Item = TypeVar("Item")


class BatchedEncoder(Generic[Item]):
    """Starts, tunes and stops the batches of one model; lives on the event loop that starts it.

    `compute`, of the runtime, takes a batch and returns one float32 row for each item. `gate` is the device's
    gate if other models share it.
    """

    def __init__(
        self,
        runtime: BatchRuntime,
        compute: Callable[[list[Item]], NDArray[np.float32]],
        config: EncoderConfig,
        *,
        name: str,
        gate: DeviceGate | None,
        registry: Registry | None,
    ) -> None:
        self._spec = runtime.spec
        self._batches: EncoderBatches[Item] = EncoderBatches(
            compute, runtime, config, name=name, gate=gate, registry=registry
        )

    @property
    def spec(self) -> EncoderSpec:
        """The model's sizes."""
        return self._spec

    @property
    def batches(self) -> int:
        """Batches finished; failed ones do not count."""
        return self._batches.finished

    @property
    def has_work(self) -> bool:
        """Whether items wait or are with the model."""
        return self._batches.has_work

    @property
    def healthy(self) -> bool:
        """False once the loop that takes batches has failed."""
        return self._batches.healthy

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return self._batches.waiting

    @property
    def batch_config(self) -> EngineConfig:
        """Bounds of batches and queue; assign another one at any time, it holds from the next batch on."""
        return self._batches.config

    @batch_config.setter
    def batch_config(self, config: EngineConfig) -> None:
        self._batches.config = config

    def start(self) -> None:
        """Start on the running event loop."""
        self._batches.start()

    async def stop(self, *, drain: bool = True) -> None:
        """Refuse new items, finish those that wait (without `drain`: only the batch that runs), and end."""
        await self._batches.stop(drain=drain)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
