"""The models of one device, and the gate they share."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from carpool.errors import CarpoolError, InvalidRequest, ModelFailed, ModelNotFound
from carpool.inference_engine import DeviceGate, InvalidConfig
from carpool.telemetry import Registry
from carpool.worker.config import WorkerConfig
from carpool.worker.hosted import Emit, HostedModel
from carpool.worker.protocol import Load, Progress

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


LoadModel = Callable[[Load, Surroundings], Awaitable[HostedModel]]


class ModelHost:
    """Loads models, several at a time, and keeps them by name."""

    def __init__(self, config: WorkerConfig, load_model: LoadModel) -> None:
        self.config = config
        self.registry = Registry()
        self.gate = DeviceGate(config.gate_policy)
        self._load_model = load_model
        self._models: dict[str, HostedModel] = {}
        self._loading: set[str] = set()

    @property
    def steps(self) -> int:
        """Batches and steps that the models here have finished."""
        return sum(model.steps for model in self._models.values())

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
            model = await self._load_model(
                load, Surroundings(self.config, self.gate, self.registry, emit, on_progress)
            )
        except CarpoolError:
            raise
        except Exception as error:
            _log.exception("%s cannot be loaded", load.model)
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        finally:
            self._loading.remove(load.model)
        self._models[load.model] = model
        return model

    async def unload(self, name: str) -> None:
        """Refuse new requests for a model, finish the others and free it. Raises `ModelNotFound`."""
        model = self.get(name)
        del self._models[name]
        await model.close()

    def set(self, key: str, value: str | float) -> None:
        """Change a setting: `gate_policy`. Raises `InvalidRequest` for another key or a bad value."""
        if key != "gate_policy":
            raise InvalidRequest(f"There is no setting `{key}`.", param=key)
        try:
            self.gate.policy = value  # type: ignore[assignment]  # any other value is refused
        except InvalidConfig as error:
            raise InvalidRequest(str(error), param=key) from error
