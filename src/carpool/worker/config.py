"""The settings of a worker process and of the gateway's client to it."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from carpool.errors import StartError
from carpool.inference_engine import POLICIES, Policy
from carpool.models.reference import ModelReference, Source

WhenLoading = Literal["refuse", "wait"]
"""What a request does whose model is not up yet: 503 with the progress, or wait for it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def available_cores() -> int:
    """Cores this process may use: its affinity, bounded by the container's CPU quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model to serve."""

    reference: str
    """Where its files come from, in the form of `models.reference`."""
    name: str = ""
    """What requests call it; also its id in `/v1/models`. Empty: as the reference says."""
    aliases: tuple[str, ...] = ()
    """Other names it answers to."""
    cache: Literal["on", "exact", "opt-in", "off"] | None = None
    """How its answers are cached; None: as the key or `cache.mode` says."""
    preload: bool = True
    """Whether it is loaded at the start; otherwise when it is asked for."""
    max_concurrent_requests: int | None = None
    """Requests it works on at once, waiting ones included; None: as many as its queue takes."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of this model alone, such as its precision; checked by the worker when it loads the model."""

    def __post_init__(self) -> None:
        reference = ModelReference.parse(self.reference)
        if reference.source is Source.PATH and not Path(reference.name).exists():
            raise StartError(f"models: {reference.name} does not exist")
        if not self.name:
            object.__setattr__(self, "name", reference.model_id)
        if self.cache not in (None, "on", "exact", "opt-in", "off"):
            raise StartError(
                f"models: cache of {self.name} must be on, exact, opt-in or off, not {self.cache!r}"
            )
        if self.max_concurrent_requests is not None and self.max_concurrent_requests < 1:
            raise StartError(
                f"models: max_concurrent_requests of {self.name} must be at least 1, "
                f"not {self.max_concurrent_requests}"
            )
        for name in (self.name, *self.aliases):
            if not _NAME.fullmatch(name):
                raise StartError(
                    f"models: {name!r} is not a model name: letters, digits and . _ : / - only, at most 128"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """A worker process and the models it hosts."""

    models: tuple[ModelConfig, ...] = ()
    model_dir: Path = Path("~/.cache/carpool")
    """Where fetched model files are kept."""
    device: Literal["cpu"] = "cpu"
    num_threads: int | None = None
    """Threads of the forward passes; None: one per available core."""
    gate_policy: Policy = "priority"
    """Whose batch or step goes next on the device; see `inference_engine.DeviceGate`."""
    max_batch_size: int | None = None
    """Items per encoder batch and running sequences per LLM; None: each floor's default."""
    batch_wait_ms: float | None = None
    """How long a batch waits for company, in ms; None or 0: not at all."""
    memory_budget_bytes: int | None = None
    """Memory that all loaded models may take together, weights and KV memory; None: no bound."""
    load_on_demand: bool = False
    """Whether a request loads a model that is not loaded; otherwise it is refused."""
    when_loading: WhenLoading = "refuse"
    max_requests_per_model: int = 512
    """Requests that a model may have at once, running or waiting, each choice counted; beyond it 503."""
    drain_s: float = 30.0
    """How long a stop waits for running requests, in seconds."""
    heartbeat_timeout_s: float = 30.0
    """A worker that sends nothing for so long is stuck and restarted, in seconds."""
    step_timeout_s: float = 300.0
    """A worker with a model that owes a step and takes none for so long is stuck and restarted, in seconds.
    Longer than the longest step of the largest model."""
    restart_backoff_s: float = 0.5
    """Wait before the first restart of a worker that died, in seconds; doubles with every failed life."""
    restart_backoff_max_s: float = 30.0
    restart_attempts: int = 5
    """Lives that may end before their models are up, one after another, until the worker is given up."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_dir", self.model_dir.expanduser())
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        for name in names:
            if names.count(name) > 1:
                raise StartError(f"models: the name {name} is used more than once")
        if self.gate_policy not in POLICIES:
            raise StartError(f"gate_policy must be one of {', '.join(POLICIES)}, not {self.gate_policy!r}")
        if self.when_loading not in ("refuse", "wait"):
            raise StartError(f"when_loading must be refuse or wait, not {self.when_loading!r}")
        for attribute in (
            "num_threads",
            "max_batch_size",
            "memory_budget_bytes",
            "max_requests_per_model",
            "restart_attempts",
        ):
            value = getattr(self, attribute)
            if value is not None and value < 1:
                raise StartError(f"{attribute} must be at least 1, not {value}")
        for attribute in ("batch_wait_ms", "drain_s", "restart_backoff_s"):
            value = getattr(self, attribute)
            if value is not None and not 0 <= value < math.inf:
                raise StartError(f"{attribute} must be finite and not negative, not {value}")
        for attribute in ("heartbeat_timeout_s", "step_timeout_s"):
            value = getattr(self, attribute)
            if not 3 <= value < math.inf:
                raise StartError(f"{attribute} must be finite and at least 3, not {value}")
        if not self.restart_backoff_max_s >= self.restart_backoff_s:
            raise StartError("restart_backoff_max_s must be at least restart_backoff_s")

    @property
    def threads(self) -> int:
        """The number of threads meant by `num_threads`."""
        return self.num_threads or available_cores()

    def to_json(self) -> str:
        """For the command line of the worker process."""
        return msgspec.json.encode(self, enc_hook=str).decode()

    @classmethod
    def from_json(cls, text: str) -> "WorkerConfig":
        """What `to_json` wrote."""
        return msgspec.json.decode(text, type=cls, dec_hook=lambda kind, value: kind(value))
