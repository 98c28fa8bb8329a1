"""Which models of a worker are loaded: what is asked for, within the memory of the device."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from carpool.errors import CarpoolError, InvalidRequest, Unavailable, WorkerDied
from carpool.models.tokenizer import Tokenizer
from carpool.worker import protocol
from carpool.worker.config import WorkerConfig
from carpool.worker.connection import Connection
from carpool.worker.protocol import Knobs
from carpool.worker.states import ModelState, ModelStates
from carpool.worker.usage import ModelUsage

_log = logging.getLogger(__name__)


class ModelManager:
    """Loads and unloads models in the present life of a worker, and loads them again in the next one.

    `states` tells how far each is. Memory is promised to a model before it is built and returned when it is
    unloaded, so that what is loaded never exceeds the budget. A load that finds no room unloads idle models,
    the least recently used first; a model with open requests stays. At the start nothing gives way: models
    for which there is no room then are left unloaded.
    """

    def __init__(
        self, config: WorkerConfig, states: ModelStates, usage: ModelUsage, call_ids: Iterator[int]
    ) -> None:
        self.tokenizers: dict[str, Tokenizer] = {}
        """Of the models that are up and generate text."""
        self._budget_bytes = config.memory_budget_bytes
        self._configs = {model.name: model for model in config.models}
        self._states = states
        self._usage = usage
        self._call_ids = call_ids
        self._wanted = {model.name for model in config.models if model.preload}
        self._knobs = dict.fromkeys(self._configs, Knobs())
        """What was set while the server ran; it survives the worker's lives."""
        self._promised: dict[str, int] = {}
        self._making_room = asyncio.Lock()
        self._connection: Connection | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    # What is asked for.

    def load(self, state: ModelState) -> None:
        """Begin to load a model; does nothing for one that is up or on its way.

        Raises `Unavailable` while it is being unloaded.
        """
        if state.phase == "unloading":
            raise Unavailable(f"The model `{state.name}` is being unloaded.", retry_after_s=1.0)
        if state.phase not in ("unloaded", "failed"):
            return
        self._wanted.add(state.name)
        self._states.update(state.name, phase="queued", percent=0.0)
        if self._connection is not None:
            self._start(self._load(self._connection, state.name))

    def unload(self, state: ModelState) -> None:
        """Begin to unload a model: what runs on it is finished, new requests are refused.

        Does nothing for one that is not loaded. Raises `InvalidRequest` while it is loading.
        """
        name = state.name
        if state.phase == "ready" and self._connection is not None:
            self._start(self._unloading(self._connection, name))
        elif state.phase == "failed":
            self._forget(name)
        elif state.phase not in ("unloading", "unloaded"):
            raise InvalidRequest(f"The model `{name}` is loading ({state.phase}); unload it when it is up.")

    async def tune(self, name: str, knobs: Knobs) -> None:
        """Change knobs of a model, loaded or not. Raises `InvalidRequest` and `WorkerDied`."""
        if self._connection is not None and self._states.by_name[name].phase == "ready":
            await self._connection.call(protocol.Tune(next(self._call_ids), name, knobs))
        self._knobs[name] = knobs.over(self._knobs[name])
        self._states.update(name, knobs=knobs.over(self._states.by_name[name].knobs))

    # The worker's lives.

    def begin_life(self, connection: Connection, on_up: Callable[[], None]) -> None:
        """Begin to load what is wanted; `on_up` is called when all of it is up, failed or without room."""
        self._connection = connection
        self._start(self._load_all(connection, on_up))

    async def end_life(self) -> None:
        """The worker and all that was loaded is gone."""
        self._connection = None
        self._promised.clear()
        self.tokenizers.clear()
        for state in self._states.by_name.values():
            if state.phase != "failed":
                phase = "restarting" if state.name in self._wanted else "unloaded"
                self._states.update(state.name, phase=phase, percent=0.0)
        await self.cancel()

    async def cancel(self) -> None:
        """Give up what is being loaded or unloaded."""
        for job in self._jobs:
            job.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs)

    # Jobs.

    def _start(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _load_all(self, connection: Connection, on_up: Callable[[], None]) -> None:
        names = [name for name in self._configs if name in self._wanted]
        for name in names:
            self._states.update(name, phase="queued", percent=0.0)
        weights = await asyncio.gather(*(self._weigh(connection, name) for name in names))
        loads = []
        for name, memory_bytes in zip(names, weights, strict=True):  # in the order of the settings
            if memory_bytes is None:
                continue
            if self._promise(name, memory_bytes):
                loads.append(self._build(connection, name))
            else:
                self._refuse(name, self._no_room(memory_bytes))
        await asyncio.gather(*loads)
        if self._connection is connection:
            on_up()

    async def _load(self, connection: Connection, name: str) -> None:
        memory_bytes = await self._weigh(connection, name)
        if memory_bytes is None:
            return
        async with self._making_room:
            victims = [] if self._promise(name, memory_bytes) else self._victims(memory_bytes)
            if victims is None:
                self._refuse(name, self._no_room(memory_bytes))
                return
            if victims:
                _log.info("%s makes room for %s", ", ".join(victims), name)
                self._promised[name] = memory_bytes  # before anybody else takes what becomes free
                await asyncio.gather(*[self._unloading(connection, victim) for victim in victims])
        await self._build(connection, name)

    async def _weigh(self, connection: Connection, name: str) -> int | None:
        """The bytes that a model will take; None where that is more than there can be, or the load failed."""
        if self._budget_bytes is None:
            return 0
        config = self._configs[name]
        message = protocol.Weigh(next(self._call_ids), name, config.reference, dict(config.options))
        try:
            weighed: protocol.Weighed = await connection.call(message)
        except WorkerDied:
            return None  # the next life begins anew
        except CarpoolError as error:
            self._fail(name, error.message)
            return None
        if weighed.memory_bytes > self._budget_bytes:
            self._fail(
                name,
                f"it takes {_gib(weighed.memory_bytes)}, more than all models together may take: "
                f"{_gib(self._budget_bytes)} (worker.memory_budget_bytes)",
            )
            return None
        return weighed.memory_bytes

    async def _build(self, connection: Connection, name: str) -> None:
        config, knobs = self._configs[name], self._knobs[name]
        message = protocol.Load(next(self._call_ids), name, config.reference, dict(config.options), knobs)
        try:
            loaded: protocol.Loaded = await connection.call(message)
            while (meanwhile := self._knobs[name]) is not knobs:
                knobs = meanwhile
                await connection.call(protocol.Tune(next(self._call_ids), name, knobs))
            if loaded.tokenizer is not None:
                self.tokenizers[name] = await asyncio.to_thread(Tokenizer.from_json, loaded.tokenizer)
        except WorkerDied:
            return
        except CarpoolError as error:
            self._fail(name, error.message)
        except Exception as error:  # whatever else is wrong with its tokenizer
            _log.exception("the tokenizer of %s cannot be used", name)
            self._fail(name, f"its tokenizer cannot be used: {error}")
        else:
            self._usage.touch(name)
            self._states.update(
                name,
                phase="ready",
                percent=100.0,
                error=None,
                task=loaded.task,
                context_length=loaded.context_length,
                revision=loaded.revision,
                dimensions=loaded.dimensions,
                memory_bytes=loaded.memory_bytes,
                knobs=knobs.over(loaded.knobs),
                tool_form=loaded.tool_form,
                details=loaded.details,
            )

    def _unloading(self, connection: Connection, name: str) -> Coroutine[Any, Any, None]:
        """Refuse new requests to a model from now on; what is returned finishes the others and frees it."""
        self._wanted.discard(name)
        self._states.update(name, phase="unloading")
        return self._unload(connection, name)

    async def _unload(self, connection: Connection, name: str) -> None:
        try:
            await connection.call(protocol.Unload(next(self._call_ids), name))
        except CarpoolError as error:  # the worker is gone, and the model with it
            _log.debug("%s was not unloaded: %s", name, error)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """The model takes no memory any more."""
        self._wanted.discard(name)
        self._promised.pop(name, None)
        self.tokenizers.pop(name, None)
        self._states.update(name, phase="unloaded", percent=0.0, error=None)

    def _fail(self, name: str, reason: str) -> None:
        self._wanted.discard(name)
        self._promised.pop(name, None)
        self._states.update(name, phase="failed", error=reason)

    def _refuse(self, name: str, reason: str) -> None:
        _log.warning("%s is not loaded: %s", name, reason)
        self._wanted.discard(name)
        self._states.update(name, phase="unloaded", percent=0.0, error=reason)

    # Memory.

    def _promise(self, name: str, memory_bytes: int) -> bool:
        """Keep memory for a model if there is enough."""
        if self._budget_bytes is not None and self._taken_bytes + memory_bytes > self._budget_bytes:
            return False
        self._promised[name] = memory_bytes
        return True

    @property
    def _taken_bytes(self) -> int:
        return sum(self._promised.values())

    def _victims(self, memory_bytes: int) -> list[str] | None:
        """Idle models whose memory is enough, least recently used first; None where it is not."""
        missing = self._taken_bytes + memory_bytes - (self._budget_bytes or 0)
        idle = [
            state.name
            for state in self._states.by_name.values()
            if state.phase == "ready" and not self._usage.open_requests(state.name)
        ]
        idle.sort(key=self._usage.idle_s, reverse=True)
        for count, freed in enumerate(itertools.accumulate(self._promised[each] for each in idle), 1):
            if freed >= missing:
                return idle[:count]
        return None

    def _no_room(self, memory_bytes: int) -> str:
        holders = ", ".join(f"{each} {_gib(size)}" for each, size in self._promised.items())
        return (
            f"it takes {_gib(memory_bytes)}, and of {_gib(self._budget_bytes or 0)} "
            f"(worker.memory_budget_bytes) are in use: {holders}"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
