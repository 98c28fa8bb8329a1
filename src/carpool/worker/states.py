"""What is known of the configured models, and news of every change."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from carpool.errors import ModelNotFound
from carpool.models.reference import ModelReference
from carpool.models.revision import revision
from carpool.worker.config import ModelConfig
from carpool.worker.protocol import Knobs


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a configured model."""

    name: str
    reference: str
    revision: str | None
    """Which model that is: see `models.revision`. None until it is fetched."""
    aliases: tuple[str, ...]
    created: int
    """When it was configured, in Unix seconds."""
    cache: Literal["on", "exact", "opt-in", "off"] | None = None
    """How its answers are cached, where that is set for this model."""
    phase: str = "queued"
    """queued, fetching, reading, building, compiling, ready, failed, restarting, unloading or unloaded."""
    percent: float = 0.0
    """Of the whole load, 0 to 100."""
    done_bytes: int = 0
    """Of the phase, where it is counted in bytes."""
    total_bytes: int = 0
    error: str | None = None
    """Why it failed, or why it could not be loaded the last time."""
    task: str | None = None
    """`generate`, `embed` or `rerank`; this and what follows is known once the model was up."""
    context_length: int | None = None
    """Most tokens of one request."""
    dimensions: int | None = None
    """Of an embedding."""
    memory_bytes: int | None = None
    """Weights and KV memory."""
    knobs: Knobs = Knobs()
    """In force, or what will be when it is loaded."""
    tool_form: str | None = None
    """How a model that generates writes tool calls: the name of one of `models.tool_forms`."""
    details: dict[str, Any] = {}


class ModelStates:
    """The states by name. A state is replaced, never changed, and each replacement makes a new `version`."""

    def __init__(self, configs: Iterable[ModelConfig], model_dir: Path) -> None:
        self._model_dir = model_dir
        self._states: dict[str, ModelState] = {}
        self._names: dict[str, str] = {}
        self._news = asyncio.Event()
        self.version = 0
        for config in configs:
            self._add(config)

    @property
    def by_name(self) -> Mapping[str, ModelState]:
        """A live, read-only view."""
        return MappingProxyType(self._states)

    def resolve(self, name: str) -> ModelState:
        """The state of the model with this name or alias. Raises `ModelNotFound`."""
        try:
            return self._states[self._names[name]]
        except KeyError:
            raise ModelNotFound(f"The model `{name}` does not exist.", param="model") from None

    def _add(self, config: ModelConfig) -> None:
        for name in (config.name, *config.aliases):
            self._names[name] = config.name
        self._states[config.name] = ModelState(
            name=config.name,
            reference=config.reference,
            # What the files are now: answers of before are served until the worker says what it has loaded.
            revision=revision(ModelReference.parse(config.reference), self._model_dir),
            aliases=config.aliases,
            cache=config.cache,
            created=int(time.time()),
            phase="queued" if config.preload else "unloaded",
        )

    def update(self, name: str, **changes: Any) -> None:
        """Replace fields of a state."""
        self._states[name] = msgspec.structs.replace(self._states[name], **changes)
        self.announce()

    def announce(self) -> None:
        """Make a new version, so that everybody in `changed` looks again."""
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()

    async def changed(self, since: int) -> int:
        """Wait until `version` is above `since`; returns the version."""
        while self.version <= since:
            await self._news.wait()
        return self.version
