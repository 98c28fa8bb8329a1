"""The gateway's client to a worker: keeps it alive, knows its models, sends it requests."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

import msgspec
import numpy as np

from carpool import telemetry
from carpool.errors import ModelFailed, Unavailable
from carpool.inference_engine import Policy
from carpool.models.tool_forms import named_form
from carpool.worker import protocol
from carpool.worker.answers import Embeddings, Scores
from carpool.worker.config import WhenLoading, WorkerConfig
from carpool.worker.connection import Connection
from carpool.worker.generation import Generation
from carpool.worker.link import WorkerLink
from carpool.worker.model_manager import ModelManager
from carpool.worker.places import Places, Reservation
from carpool.worker.process import Spawn, WorkerProcess
from carpool.worker.refusals import not_up, wrong_task
from carpool.worker.rounds import Rounds
from carpool.worker.states import ModelState, ModelStates
from carpool.worker.usage import ModelUsage


class WorkerClient:
    """A worker and the models it hosts, as long as the client is started.

    It is started at once and the models come up behind it: watch `models` with `changed`. A worker that dies
    is started again with its models; the requests it had end with `WorkerDied`.
    """

    def __init__(self, config: WorkerConfig, *, spawn: Spawn = WorkerProcess.spawn) -> None:
        self.usage = ModelUsage()
        """Who uses which model."""
        self._config = config
        self._states = ModelStates(config.models, config.model_dir)
        limits = {model.name: model.max_concurrent_requests for model in config.models}
        self._places = Places(config.max_requests_per_model, limits)
        self._ids = itertools.count(1)
        self._rounds = Rounds()
        self._manager = ModelManager(config, self._states, self.usage, self._ids)
        self._link = WorkerLink(config, spawn, self._states, self._manager, self.usage)

    async def start(self) -> None:
        """Start the worker; returns before it is up."""
        self._link.start()

    async def stop(self, drain_s: float | None = None) -> None:
        """Refuse new requests, let the running ones finish for `drain_s` (default: as configured), and end.

        What still runs then ends with `Draining`. The worker process is gone when this returns.
        """
        await self._link.stop(self._config.drain_s if drain_s is None else drain_s)

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
        return 0 if self._link.connection is None else self._link.connection.open_calls

    def limit(self, name: str) -> int | None:
        """How many requests the model of this name may have at once; None: as many as any model."""
        return self._places.own_limit(name)

    def resolve(self, name: str) -> ModelState:
        """The state of the model with this name or alias. Raises `ModelNotFound`."""
        return self._states.resolve(name)

    async def changed(self, since: int) -> int:
        """Wait until `version` is above `since`; returns the version."""
        return await self._states.changed(since)

    def snapshots(self) -> list[tuple[dict[str, str], telemetry.Snapshot]]:
        """The newest metrics of the worker, with the labels that tell workers apart."""
        metrics = self._link.metrics
        return [] if metrics is None else [({"device": self._config.device}, metrics)]

    async def gave_up(self) -> str:
        """Wait until no further life of the worker will be tried; returns why."""
        while self._link.given_up is None:
            await self.changed(self.version)
        return self._link.given_up

    # Requests.

    def check_room(self, name: str, choices: int) -> None:
        """Raise `Overloaded` if generations would find no places at the model of this name now."""
        self._places.check(name, choices)

    def reserve(self, name: str, count: int = 1) -> Reservation:
        """Take places at the model of this name, each for one choice. Raises `Overloaded`.

        The caller closes them, whatever comes of the request.
        """
        return self._places.take(name, count)

    async def generate(
        self, request: protocol.Generate, *, stop: Sequence[str] = (), places: Reservation | None = None
    ) -> Generation:
        """Start a generation; returns when the worker has accepted it. `request.id` is assigned here.

        `places`: those that were reserved for its choices, and perhaps for more; None: it takes its own.
        A match of one of the `stop` strings ends its choice with `stop`; the text ends before the match.
        Raises `ModelNotFound`, `ModelLoading`, `ModelUnloaded`, `ModelFailed`, `Overloaded`, `WorkerDied` and
        `Draining`, or what the worker refused it with. Where the config says so, it waits for its model to be
        up. Cancelling it frees its place at the model.
        """
        state, connection = await self._place(request.model, "generate")
        on_end = self._begin(state.name, places, request.n)  # a full model refuses before anything is made
        call_id = next(self._ids)
        request = msgspec.structs.replace(request, id=call_id, model=state.name)
        try:
            generation = self._generation(state, request, stop, lambda: connection.cancel(call_id))
        except BaseException:
            on_end()
            raise
        await connection.generate(request, generation, on_end)
        return generation

    def _generation(
        self,
        state: ModelState,
        request: protocol.Generate,
        stop: Sequence[str],
        on_close: Callable[[], None],
    ) -> Generation:
        tokenizer = self._manager.tokenizers[state.name]
        shown: Collection[int] = ()
        if request.grammar is not None and request.grammar.kind == "tool_calls":
            shown = tokenizer.special_ids_of(named_form(state.tool_form).marks).values()
        return Generation(
            tokenizer,
            request.n,
            stop,
            on_close=on_close,
            rounds=self._rounds,
            shown=shown,
            min_tokens=request.min_tokens,
        )

    async def count_tokens(self, request: protocol.Prompt) -> int:
        """The length of a prompt as its model sees it. It takes no place, and waits for no model to come up.

        Raises `Unavailable` where the model is not up, and else as `generate`.
        """
        state, connection = self.resolve(request.model), self._link.connection
        if state.phase != "ready" or connection is None:
            raise Unavailable(f"The model `{state.name}` is not up.")
        fields = {name: getattr(request, name) for name in protocol.Prompt.__struct_fields__}
        call = protocol.Count(**{**fields, "id": next(self._ids), "model": state.name})
        counted: protocol.Counted = await connection.call(call)
        return counted.prompt_tokens

    async def embed(self, request: protocol.Embed) -> Embeddings:
        """Embed the inputs; `request.id` is assigned here. Raises and is cancelled as `generate`."""
        state, connection = await self._place(request.model, "embed")
        request = msgspec.structs.replace(request, id=next(self._ids), model=state.name)
        result: protocol.Result = await connection.call(request, self._begin(state.name))
        vectors = np.frombuffer(result.data, dtype="<f4").reshape(-1, result.dimensions)
        return Embeddings(vectors, result.tokens)

    async def score(self, request: protocol.Score) -> Scores:
        """Score documents against a query, with a reranker or an embedding model (see `protocol.Score`).

        `request.id` is assigned here; `resolve(request.model)` tells the model's name and `task`. Raises and
        is cancelled as `generate`; the `param` of an `InvalidRequest` is `query` or `documents[i]`.
        """
        state, connection = await self._place(request.model, "rerank", "embed")
        request = msgspec.structs.replace(request, id=next(self._ids), model=state.name)
        answer: protocol.Scores = await connection.call(request, self._begin(state.name))
        return Scores(np.frombuffer(answer.data, dtype="<f4"), answer.tokens)

    def _begin(self, name: str, places: Reservation | None = None, count: int = 1) -> Callable[[], None]:
        """Use places of a model for one call; returns what is to be called at its end."""
        free = (places or self.reserve(name, count)).use(count)
        self.usage.begin(name)

        def end() -> None:
            free()
            self.usage.end(name)

        return end

    async def _place(self, name: str, *tasks: str) -> tuple[ModelState, Connection]:
        """The model's state and the way to it, or the reason why not; `tasks` are those that will do."""
        state = self.resolve(name)
        if state.task is not None and state.task not in tasks:
            raise wrong_task(state)
        connection = await self._way_to(state.name)
        if (state := self.models[state.name]).task not in tasks:  # which was not known before
            raise wrong_task(state)
        return state, connection

    async def _way_to(self, name: str) -> Connection:
        """The connection through which a model can be reached, waiting for it where the config says so."""
        load_it = self._config.load_on_demand
        while True:
            state, version = self.models[name], self.version
            if self._link.draining:
                raise self._link.refusal()
            if state.phase == "ready" and self._link.connection is not None:
                return self._link.connection
            if state.phase == "unloaded" and load_it:
                load_it = False
                self._manager.load(state)
                continue
            if state.phase in ("failed", "unloaded") or self._config.when_loading == "refuse":
                if state.phase == "restarting":
                    raise self._link.refusal()
                raise not_up(
                    state,
                    load_on_demand=self._config.load_on_demand,
                    start_left_s=self._link.start_left_s(state.percent),
                )
            await self.changed(version)

    # Models and settings.

    def load(self, name: str) -> ModelState:
        """Begin to load a model that is not loaded; its state in `models` tells how it goes.

        Raises `ModelNotFound`, `Unavailable` while it is being unloaded, `ModelFailed` where the worker is
        given up, and `Draining`.
        """
        state = self.resolve(name)
        if self._link.draining:
            raise self._link.refusal()
        if self._link.given_up is not None:
            raise ModelFailed(self._link.given_up)
        self._manager.load(state)
        return self.models[state.name]

    def unload(self, name: str) -> ModelState:
        """Begin to unload a model: new requests are refused, those that run are finished, then it is freed.

        Raises `ModelNotFound`, and `InvalidRequest` while it is loading.
        """
        state = self.resolve(name)
        self._manager.unload(state)
        return self.models[state.name]

    @property
    def config(self) -> WorkerConfig:
        """The settings in force."""
        return self._config

    async def configure(
        self,
        *,
        gate_policy: Policy | None = None,
        load_on_demand: bool | None = None,
        when_loading: WhenLoading | None = None,
    ) -> None:
        """Change settings while the worker runs; None leaves one as it is.

        Raises `StartError` for a bad value, and `WorkerDied` if the worker ends meanwhile.
        """
        given = {
            "gate_policy": gate_policy,
            "load_on_demand": load_on_demand,
            "when_loading": when_loading,
        }
        config = replace(self._config, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
        if config.gate_policy != self._config.gate_policy and self._link.connection is not None:
            await self._link.connection.call(protocol.Set(next(self._ids), "gate_policy", config.gate_policy))
        self._config = config
        self._link.configure(config)
        self._states.announce()  # who waits for a model may be refused now

    async def tune(self, knobs: protocol.Knobs, name: str | None = None) -> None:
        """Change knobs of one model or of all of them, loaded or not; a later life of the worker keeps them.

        Raises `ModelNotFound`, `InvalidRequest` for a bad value, and `WorkerDied` if the worker ends
        meanwhile.
        """
        names = list(self.models) if name is None else [self.resolve(name).name]
        for each in names:
            await self._manager.tune(each, knobs)

    def set_limit(self, name: str, limit: int | None) -> None:
        """Change how many requests a model may have at once; None: as many as its queue takes.

        Raises `ModelNotFound`.
        """
        self._places.set_own_limit(self.resolve(name).name, limit)
        self._states.announce()
