"""Batching for any model: single requests in, one model call for many of them, each result back to its own.

Standard library only; the folder works wherever it is copied. `InferenceEngine` and `batched` are the front
door; the parts (`QueueManager`, `BatchScheduler`, `InferenceWorker`) can be wired by hand; `DeviceGate`
shares one device between several engines.
"""

from .batch_scheduler import BatchScheduler
from .clock import Clock, MonotonicClock, Timer
from .config import BATCH_SIZE, TIMEOUT, EngineConfig
from .cost_model import CostModel
from .device_gate import POLICIES, DeviceGate, Policy, Turn
from .engine import BatchedFunction, InferenceEngine, batched
from .errors import (
    DeadlineExceeded,
    EngineStopped,
    InferenceEngineError,
    InvalidConfig,
    ItemFailed,
    ModelThreadDied,
    QueueFull,
    WrongResultCount,
)
from .events import BatchEvent, Observer, Release
from .manual_clock import ManualClock
from .queue_manager import QueueManager
from .task import InferenceTask, Priority
from .worker import InferenceWorker

__all__ = [
    "BATCH_SIZE",
    "POLICIES",
    "TIMEOUT",
    "BatchEvent",
    "BatchScheduler",
    "BatchedFunction",
    "Clock",
    "CostModel",
    "DeadlineExceeded",
    "DeviceGate",
    "EngineConfig",
    "EngineStopped",
    "InferenceEngine",
    "InferenceEngineError",
    "InferenceTask",
    "InferenceWorker",
    "InvalidConfig",
    "ItemFailed",
    "ManualClock",
    "ModelThreadDied",
    "MonotonicClock",
    "Observer",
    "Policy",
    "Priority",
    "QueueFull",
    "QueueManager",
    "Release",
    "Timer",
    "Turn",
    "WrongResultCount",
    "batched",
]
