"""Tells a worker that is stuck from one that works: by its heartbeat and by its progress."""

import asyncio
import math

from carpool.worker import protocol
from carpool.worker.config import WorkerConfig
from carpool.worker.usage import ModelUsage

HEARTBEAT_S = 1.0
"""How often a worker tells its `Stats`."""
TICK_S = HEARTBEAT_S

_SIGNS_OF_PROGRESS = (
    protocol.Accepted | protocol.Step | protocol.Result | protocol.Scores | protocol.Loaded | protocol.Error
)


class Watchdog:
    """Watches one life of a worker.

    It counts ticks of its own in which nothing was heard. A gateway that was suspended, or kept from
    running, has counted few of them, and takes nobody for stuck on that account. A worker that has not said
    anything yet is starting, and has as long as for a step.
    """

    def __init__(self, config: WorkerConfig, usage: ModelUsage) -> None:
        self._config = config
        self._usage = usage
        self._up = False
        self._silent = 0
        """Ticks since the last message."""
        self._still = 0
        """Ticks since the last sign of progress, while there were requests."""
        self._steps = 0

    def hear(self, message: protocol.FromWorker) -> None:
        """The worker has sent this."""
        self._up = True
        self._silent = 0
        if isinstance(message, protocol.Stats):
            if message.steps == self._steps:
                return
            self._steps = message.steps
        elif not isinstance(message, _SIGNS_OF_PROGRESS):
            return
        self._still = 0

    async def stuck(self) -> str:
        """Return, with the reason, when the worker is stuck."""
        while True:
            await asyncio.sleep(TICK_S)
            self._silent += 1
            self._still = self._still + 1 if self._usage.open_in_all else 0
            silence_s = self._config.heartbeat_timeout_s if self._up else self._config.step_timeout_s
            if self._silent >= _ticks(silence_s):
                return f"it has sent nothing for {silence_s:g} s"
            if self._still >= _ticks(self._config.step_timeout_s):
                return f"it has taken no step for {self._config.step_timeout_s:g} s, and requests wait"


def _ticks(seconds: float) -> int:
    return math.ceil(seconds / HEARTBEAT_S)
