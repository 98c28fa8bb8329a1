"""The gateway's client to a worker: keeps it alive, knows its models, sends it requests."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType

import msgspec
import numpy as np

from carpool import telemetry
from carpool.errors import CarpoolError, Draining, InvalidRequest, ModelFailed, ModelLoading, WorkerDied
from carpool.models.tokenizer import Tokenizer
from carpool.worker import protocol
from carpool.worker.answers import Embeddings, Scores
from carpool.worker.config import ModelConfig, WorkerConfig
from carpool.worker.connection import Connection, News
from carpool.worker.generation import Generation
from carpool.worker.process import Life, Spawn, WorkerProcess
from carpool.worker.states import ModelState, ModelStates
from carpool.worker.supervisor import Supervisor

_log = logging.getLogger(__name__)

_DOES = {"generate": "generates text", "embed": "makes embeddings", "rerank": "scores documents"}


class WorkerClient:
    """A worker and the models it hosts, as long as the client is started.

    It is started at once and the models come up behind it: watch `models` with `changed`. A worker that dies
    is started again with its models; the requests it had end with `WorkerDied`.
    """

    def __init__(self, config: WorkerConfig, *, spawn: Spawn = WorkerProcess.spawn) -> None:
        self._config = config
        self._configs = {model.name: model for model in config.models}
        self._states = ModelStates(config.models)
        self._tokenizers: dict[str, Tokenizer] = {}
        self._ids = itertools.count(1)
        self._connection: Connection | None = None
        self._supervisor = Supervisor(replace(config, models=()), spawn, self._live)
        self._supervision: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._stats: protocol.Stats | None = None
        self._draining = False

    async def start(self) -> None:
        """Start the worker; returns before it is up."""
        self._supervision = asyncio.create_task(self._supervise())

    async def stop(self, drain_s: float | None = None) -> None:
        """Refuse new requests, let the running ones finish for `drain_s` (default: as configured), and end.

        What still runs then ends with `Draining`. The worker process is gone when this returns.
        """
        self._draining = True
        self._states.announce()
        if self._loading is not None:
            self._loading.cancel()
        if self._connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.drain_s if drain_s is None else drain_s):
                    await self._connection.idle()
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})

    async def __aenter__(self) -> "WorkerClient":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # What is known.

    @property
    def models(self) -> Mapping[str, ModelState]:
        """The configured models by name."""
        return self._states.by_name

    @property
    def version(self) -> int:
        """Counts the changes of `models`."""
        return self._states.version

    @property
    def open_requests(self) -> int:
        """Calls to the worker without an end yet, loads included; 0 when idle."""
        return 0 if self._connection is None else self._connection.open_calls

    def resolve(self, name: str) -> ModelState:
        """The state of the model with this name or alias. Raises `ModelNotFound`."""
        return self._states.resolve(name)

    async def changed(self, since: int) -> int:
        """Wait until `version` is above `since`; returns the version."""
        return await self._states.changed(since)

    def snapshots(self) -> list[tuple[dict[str, str], telemetry.Snapshot]]:
        """The newest metrics of the worker, with the labels that tell workers apart."""
        return [] if self._stats is None else [({"device": self._config.device}, self._stats.metrics)]

    # Requests.

    async def generate(self, request: protocol.Generate, *, stop: Sequence[str] = ()) -> Generation:
        """Start a generation; returns when the worker has accepted it. `request.id` is assigned here.

        A match of one of the `stop` strings ends its choice with `stop`; the text ends before the match.
        Raises `ModelNotFound`, `ModelLoading`, `ModelFailed`, `WorkerDied` and `Draining` at once, or what
        the worker refused it with. Cancelling it frees its place at the model.
        """
        state, connection = self._place(request.model, "generate")
        call_id = next(self._ids)
        request = msgspec.structs.replace(request, id=call_id, model=state.name)
        generation = Generation(
            self._tokenizers[state.name], request.n, stop, on_close=lambda: connection.cancel(call_id)
        )
        await connection.generate(request, generation)
        return generation

    async def embed(self, request: protocol.Embed) -> Embeddings:
        """Embed the inputs; `request.id` is assigned here. Raises and is cancelled as `generate`."""
        state, connection = self._place(request.model, "embed")
        request = msgspec.structs.replace(request, id=next(self._ids), model=state.name)
        result: protocol.Result = await connection.call(request)
        vectors = np.frombuffer(result.data, dtype="<f4").reshape(-1, result.dimensions)
        return Embeddings(vectors, result.tokens)

    async def score(self, request: protocol.Score) -> Scores:
        """Score documents against a query, with a reranker or an embedding model (see `protocol.Score`).

        `request.id` is assigned here; `resolve(request.model)` tells the model's name and `task`. Raises and
        is cancelled as `generate`; the `param` of an `InvalidRequest` is `query` or `documents[i]`.
        """
        state, connection = self._place(request.model, "rerank", "embed")
        request = msgspec.structs.replace(request, id=next(self._ids), model=state.name)
        answer: protocol.Scores = await connection.call(request)
        return Scores(np.frombuffer(answer.data, dtype="<f4"), answer.tokens)

    def _place(self, name: str, *tasks: str) -> tuple[ModelState, Connection]:
        """The model's state and the way to it, or the reason why not; `tasks` are those that will do."""
        state = self.resolve(name)
        if self._draining:
            raise self._refusal()
        if state.phase == "failed":
            raise ModelFailed(f"The model `{state.name}` could not be loaded: {state.error}")
        if state.phase == "restarting" or self._connection is None:
            raise self._refusal()
        if state.phase != "ready":
            raise ModelLoading(
                f"The model `{state.name}` is loading ({state.phase}, {state.percent:.0f} %).",
                retry_after_s=self._supervisor.start_left_s(state.percent),
            )
        if state.task not in tasks:
            raise InvalidRequest(f"The model `{state.name}` only {_DOES[str(state.task)]}.", param="model")
        return state, self._connection

    def _refusal(self) -> CarpoolError:
        if self._draining:
            return Draining("The server is shutting down.")
        return WorkerDied(
            "The process that runs the model ended and is being restarted.",
            retry_after_s=self._supervisor.restart_s(),
        )

    # Models and settings.

    async def load(self, config: ModelConfig) -> None:
        """Host another model; `models` tells how it goes. Raises `InvalidRequest` if a name is taken."""
        for name in (config.name, *config.aliases):
            if self._states.knows(name):
                raise InvalidRequest(f"A model with the name `{name}` is loaded already.", param="name")
        self._configs[config.name] = config
        self._states.add(config)
        if self._connection is not None:
            await self._load(self._connection, config)

    async def unload(self, name: str) -> None:
        """Finish what runs on a model, free it and forget it.

        Raises `ModelNotFound`, and `InvalidRequest` while it is loading.
        """
        state = self.resolve(name)
        if self._connection is not None and state.phase == "ready":
            await self._connection.call(protocol.Unload(next(self._ids), state.name))
        elif state.phase != "failed":
            raise InvalidRequest(f"The model `{state.name}` is loading.", param="name")
        self._states.remove(state.name)
        del self._configs[state.name]
        self._tokenizers.pop(state.name, None)

    async def set(self, key: str, value: str | float) -> None:
        """Change a setting of the running worker, see `protocol.Set`. Raises `InvalidRequest`."""
        if self._connection is None:
            raise self._refusal()
        await self._connection.call(protocol.Set(next(self._ids), key, value))

    # The worker's lives.

    async def _supervise(self) -> None:
        how = await self._supervisor.run()
        for name in self._configs:
            self._states.update(name, phase="failed", error=f"the worker process does not stay up ({how})")

    async def _live(self, life: Life) -> None:
        """One life: load the models and route messages until it ends."""
        connection = self._connection = Connection(life, self._hear)
        self._loading = asyncio.create_task(self._load_all(connection))
        try:
            await connection.serve()
        finally:
            self._connection = self._stats = None
            for state in self.models.values():
                if state.phase != "failed":
                    self._states.update(state.name, phase="restarting", percent=0.0)
            connection.end(self._refusal)
            self._loading.cancel()
            await asyncio.wait({self._loading})

    async def _load_all(self, connection: Connection) -> None:
        wanted = [c for c in self._configs.values() if self.models[c.name].phase != "failed"]
        await asyncio.gather(*(self._load(connection, config) for config in wanted))
        self._supervisor.came_up()

    async def _load(self, connection: Connection, config: ModelConfig) -> None:
        name = config.name
        message = protocol.Load(next(self._ids), name, config.reference, dict(config.options))
        try:
            loaded: protocol.Loaded = await connection.call(message)
            if loaded.tokenizer is not None:
                self._tokenizers[name] = await asyncio.to_thread(Tokenizer.from_json, loaded.tokenizer)
        except (WorkerDied, Draining):
            raise
        except CarpoolError as error:
            self._states.update(name, phase="failed", error=error.message)
        except Exception as error:  # whatever else is wrong with its tokenizer
            _log.exception("the tokenizer of %s cannot be used", name)
            self._states.update(name, phase="failed", error=f"its tokenizer cannot be used: {error}")
        else:
            self._states.update(
                name,
                phase="ready",
                percent=100.0,
                task=loaded.task,
                context_length=loaded.context_length,
                dimensions=loaded.dimensions,
                details=loaded.details,
            )

    def _hear(self, news: News) -> None:
        match news:
            case protocol.Progress():
                self._states.update(
                    news.model,
                    phase=news.phase,
                    percent=news.percent,
                    done_bytes=news.done_bytes,
                    total_bytes=news.total_bytes,
                )
            case protocol.Stats():
                self._stats = news
            case protocol.Hello():
                _log.debug("worker %s is up", news.epoch)
