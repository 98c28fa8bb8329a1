"""The front door: an engine in one object, and the same as a decorator."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from .batch_scheduler import BatchScheduler
from .clock import MONOTONIC, Clock
from .config import EngineConfig
from .device_gate import DeviceGate
from .events import Observer
from .queue_manager import QueueManager
from .task import InferenceTask, Priority
from .worker import InferenceWorker

Item = TypeVar("Item")
Result = TypeVar("Result")
Engine = TypeVar("Engine", bound="InferenceEngine[Any, Any]")


class InferenceEngine(Generic[Item, Result]):
    """Batches single submissions into calls of `process_fn`.

    `process_fn` takes a list of items and returns one result for each, in order; a result that is an
    exception fails its item only. It runs in a thread of its own, on an event loop of that thread if it is
    `async`. Everything else lives on the event loop that starts the engine:

        async with InferenceEngine(model.encode) as engine:
            vector = await engine.submit("a text", cost=12)

    `concurrency` is how many calls of `process_fn` may run at a time, each in a thread of its own; an `async`
    function's loop is its thread's. `gate` is the device's gate if other engines share it, `name` the model's
    in events and `wfq` shares, `observe` is called with a `BatchEvent` after every call of the model.
    """

    def __init__(
        self,
        process_fn: Callable[
            [list[Item]], Collection[Result | Exception] | Awaitable[Collection[Result | Exception]]
        ],
        config: EngineConfig | None = None,
        *,
        concurrency: int = 1,
        gate: DeviceGate | None = None,
        name: str = "engine",
        clock: Clock = MONOTONIC,
        observe: Observer | None = None,
    ) -> None:
        config = config or EngineConfig()
        self.queue = QueueManager(config, clock=clock, concurrency=concurrency)
        self.scheduler = BatchScheduler(
            self.queue,
            process_fn,
            config.max_batch_size,
            config.batch_wait_ms / 1e3,
            gate=gate,
            name=name,
            clock=clock,
            observe=observe,
        )
        self._worker = InferenceWorker(self.scheduler)

    @property
    def config(self) -> EngineConfig:
        """The bounds in force; assign another `EngineConfig` at any time, it holds from the next batch on."""
        return self.queue.config

    @config.setter
    def config(self, config: EngineConfig) -> None:
        self.queue.config = config
        self.scheduler.batch_size = config.max_batch_size
        self.scheduler.timeout = config.batch_wait_ms / 1e3

    @property
    def has_work(self) -> bool:
        """Whether items wait or are with the model, also those that nobody waits for any more."""
        return self.scheduler.has_work

    @property
    def healthy(self) -> bool:
        """False once the engine itself has failed, whose last words the event loop's handler got."""
        return self._worker.healthy

    def start(self) -> None:
        """Start on the running event loop; tasks submitted before wait for it."""
        self._worker.start()

    async def stop(self, *, drain: bool = True) -> None:
        """Refuse new tasks and end; see `InferenceWorker.stop`."""
        await self._worker.stop(drain=drain)

    async def __aenter__(self: Engine) -> Engine:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def enqueue(
        self,
        data: Item,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        tenant: str = "local",
        cost: float = 1.0,
    ) -> asyncio.Future[Result]:
        """Queue an item and return its future at once; cancelling the future takes the item back.

        Parameters and errors as in `submit`, but `DeadlineExceeded` and the model's errors come by the
        future.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait(InferenceTask(data, future, priority, deadline, tenant, cost))
        return future

    async def submit(
        self,
        data: Item,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        tenant: str = "local",
        cost: float = 1.0,
    ) -> Result:
        """The result for one item.

        `deadline` is an absolute time of the engine's clock in seconds (`time.monotonic()`), `tenant` is who
        gets a fair share, `cost` the item's length or work, in the unit of the config's `max_batch_cost`.

        Raises `QueueFull` (come back after `retry_after_s`), `DeadlineExceeded`, `EngineStopped`,
        `WrongResultCount`, `InvalidConfig` for a bad cost, or what the model raised for this item. Cancelling
        it takes the item back; if it is with the model already, its result is dropped.
        """
        return await self.enqueue(data, priority=priority, deadline=deadline, tenant=tenant, cost=cost)


class BatchedFunction(Generic[Item, Result]):
    """A batch function that is called with one item; made by `batched`.

    The engine starts with the first call on an event loop, and anew on another loop. As a method's decorator
    it keeps one engine per instance. `stop`, or leaving `async with`, drains it.
    """

    def __init__(
        self, function: Callable[..., Any], config: EngineConfig | None, options: dict[str, Any]
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._config = config
        named: dict[str, Any] = {"name": getattr(function, "__name__", "engine")}
        self._options = named | options
        self._engine: InferenceEngine[Item, Result] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def engine(self) -> InferenceEngine[Item, Result]:
        """The engine of the running event loop, started."""
        loop = asyncio.get_running_loop()
        if self._engine is None or self._loop is not loop:
            self._engine = InferenceEngine(self._function, self._config, **self._options)
            self._engine.start()
            self._loop = loop
        return self._engine

    async def __call__(self, item: Item, **options: Any) -> Result:
        """The result for one item; options as in `InferenceEngine.submit`."""
        return await self.engine.submit(item, **options)

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, instance: object, owner: type) -> BatchedFunction[Item, Result]:
        if instance is None:
            return self
        bound = BatchedFunction[Item, Result](
            self._function.__get__(instance, owner), self._config, self._options
        )
        instance.__dict__[self._attribute] = bound  # found first from now on
        return bound

    async def stop(self) -> None:
        """Drain and stop the engine; the next call starts another."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()

    async def __aenter__(self) -> BatchedFunction[Item, Result]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


@overload
def batched(function: Callable[..., Any], /) -> BatchedFunction[Any, Any]: ...


@overload
def batched(
    *,
    config: EngineConfig | None = None,
    concurrency: int = ...,
    gate: DeviceGate | None = None,
    name: str = ...,
    clock: Clock = ...,
    observe: Observer | None = None,
) -> Callable[[Callable[..., Any]], BatchedFunction[Any, Any]]: ...


def batched(
    function: Callable[..., Any] | None = None, /, *, config: EngineConfig | None = None, **options: Any
) -> BatchedFunction[Any, Any] | Callable[[Callable[..., Any]], BatchedFunction[Any, Any]]:
    """Turn a function of a list into one of a single item, batching concurrent calls.

        @batched
        def embed(texts: list[str]) -> list[Vector]: ...

        vector = await embed("a text", cost=12)

    Arguments (`config`, `concurrency`, `gate`, `name`, `clock`, `observe`) go to `InferenceEngine`; the name
    is the function's unless given.
    """
    if function is None:
        return lambda wrapped: BatchedFunction(wrapped, config, options)
    return BatchedFunction(function, config, options)
