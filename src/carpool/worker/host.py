"""The models of one device, and the gate they share."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from carpool.errors import CarpoolError, InvalidRequest, ModelFailed, ModelNotFound, StartError
from carpool.inference_engine import DeviceGate, InvalidConfig
from carpool.telemetry import Registry
from carpool.worker.config import WorkerConfig
from carpool.worker.hosted import Emit, HostedModel
from carpool.worker.protocol import EngineStatus, Knobs, Load, Progress, Weigh

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a model is loaded into."""

    config: WorkerConfig
    gate: DeviceGate
    registry: Registry
    emit: Emit
    on_progress: Callable[[Progress], None]
    """On the event loop."""


class ModelLoader(Protocol):
    """Where models come from."""

    async def weigh(self, weigh: Weigh, surroundings: Surroundings) -> int:
        """Fetch a model and return the bytes of memory it will take. Raises the `CarpoolError` why not."""
        ...

    async def load(self, load: Load, surroundings: Surroundings) -> HostedModel:
        """Load a model and start it on the running event loop. Raises the `CarpoolError` why not."""
        ...


class ModelHost:
    """Loads models, several at a time, and keeps them by name."""

    def __init__(self, config: WorkerConfig, loader: ModelLoader) -> None:
        self.config = config
        self.registry = Registry()
        self.gate = DeviceGate(config.gate_policy)
        self._loader = loader
        self._models: dict[str, HostedModel] = {}
        self._loading: set[str] = set()
        self._closing: dict[str, HostedModel] = {}

    @property
    def engines(self) -> dict[str, EngineStatus]:
        """How the models here do, those that finish their last requests included."""
        return {
            name: EngineStatus(
                model.steps, model.has_work and not self.gate.is_behind_another(name), model.healthy
            )
            for name, model in (self._models | self._closing).items()
        }

    def get(self, name: str) -> HostedModel:
        """The loaded model of this name. Raises `ModelNotFound`."""
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFound(f"The model `{name}` is not loaded.", param="model") from None

    async def load(self, load: Load, emit: Emit, on_progress: Callable[[Progress], None]) -> HostedModel:
        """Load a model. Raises the `CarpoolError` that says why it cannot be; the worker lives on."""
        if load.model in self._models or load.model in self._loading:
            raise InvalidRequest(f"The model `{load.model}` is loaded already.")
        self._loading.add(load.model)
        try:
            with _explained(load.model):
                model = await self._loader.load(load, self._surroundings(emit, on_progress))
        finally:
            self._loading.remove(load.model)
        model.tune(load.knobs)
        self._models[load.model] = model
        return model

    async def weigh(self, weigh: Weigh, emit: Emit, on_progress: Callable[[Progress], None]) -> int:
        """How many bytes of memory a model will take; raises as `load`."""
        with _explained(weigh.model):
            return await self._loader.weigh(weigh, self._surroundings(emit, on_progress))

    def _surroundings(self, emit: Emit, on_progress: Callable[[Progress], None]) -> Surroundings:
        return Surroundings(self.config, self.gate, self.registry, emit, on_progress)

    async def unload(self, name: str) -> None:
        """Refuse new requests for a model, finish the others and free it. Raises `ModelNotFound`."""
        model = self._closing[name] = self.get(name)
        del self._models[name]
        try:
            await model.close()
        finally:
            del self._closing[name]

    def tune(self, name: str, knobs: Knobs) -> None:
        """Change knobs of a model. Raises `ModelNotFound`, and `InvalidRequest` for a bad value."""
        try:
            self.get(name).tune(knobs)
        except (StartError, InvalidConfig) as error:
            raise InvalidRequest(str(error)) from error

    def set(self, key: str, value: str | float) -> None:
        """Change a setting: `gate_policy`. Raises `InvalidRequest` for another key or a bad value."""
        if key != "gate_policy":
            raise InvalidRequest(f"There is no setting `{key}`.", param=key)
        try:
            self.gate.policy = value  # type: ignore[assignment]  # any other value is refused
        except InvalidConfig as error:
            raise InvalidRequest(str(error), param=key) from error


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what nobody foresaw while a model loads into a `ModelFailed`, so that the others go on."""
    try:
        yield
    except CarpoolError:
        raise
    except Exception as error:
        _log.exception("%s cannot be loaded", name)
        raise ModelFailed(f"{type(error).__name__}: {error}") from error
