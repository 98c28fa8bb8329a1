"""What is known of the configured models, and news of every change."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from carpool.errors import ModelNotFound
from carpool.worker.config import ModelConfig


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a configured model."""

    name: str
    reference: str
    aliases: tuple[str, ...]
    created: int
    """When it was configured, in Unix seconds."""
    cache: Literal["on", "exact", "opt-in", "off"] | None = None
    """How its answers are cached, where that is set for this model."""
    phase: str = "queued"
    """queued, fetching, reading, building, compiling, ready, failed or restarting."""
    percent: float = 0.0
    """Of the whole load, 0 to 100."""
    done_bytes: int = 0
    """Of the phase, where it is counted in bytes."""
    total_bytes: int = 0
    error: str | None = None
    """Why it failed."""
    task: str | None = None
    """`generate`, `embed` or `rerank`; this and what follows is known once the model was up."""
    context_length: int | None = None
    """Most tokens of one request."""
    dimensions: int | None = None
    """Of an embedding."""
    details: dict[str, Any] = {}


class ModelStates:
    """The states by name. A state is replaced, never changed, and each replacement makes a new `version`."""

    def __init__(self, configs: Iterable[ModelConfig]) -> None:
        self._states: dict[str, ModelState] = {}
        self._names: dict[str, str] = {}
        self._news = asyncio.Event()
        self.version = 0
        for config in configs:
            self.add(config)

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

    def knows(self, name: str) -> bool:
        """Whether this is a model's name or alias."""
        return name in self._names

    def add(self, config: ModelConfig) -> None:
        """Know a model, in phase `queued`."""
        for name in (config.name, *config.aliases):
            self._names[name] = config.name
        self._states[config.name] = ModelState(
            name=config.name,
            reference=config.reference,
            aliases=config.aliases,
            cache=config.cache,
            created=int(time.time()),
        )
        self.announce()

    def remove(self, name: str) -> None:
        """Forget a model."""
        state = self._states.pop(name)
        for known in (name, *state.aliases):
            del self._names[known]
        self.announce()

    def update(self, name: str, **changes: Any) -> None:
        """Replace fields of a state; does nothing for a model that was removed meanwhile."""
        state = self._states.get(name)
        if state is not None:
            self._states[name] = msgspec.structs.replace(state, **changes)
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
