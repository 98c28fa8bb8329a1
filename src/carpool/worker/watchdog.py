"""Tells a worker that is stuck or broken from one that works: by its heartbeat, its steps and its answers."""

import asyncio
import math
from collections import Counter

from carpool.worker import protocol
from carpool.worker.config import WorkerConfig
from carpool.worker.protocol import EngineStatus
from carpool.worker.usage import ModelUsage

HEARTBEAT_S = 1.0
"""How often a worker tells its `Stats`."""
TICK_S = HEARTBEAT_S

_ANSWERS = (
    protocol.Accepted | protocol.Step | protocol.Result | protocol.Scores | protocol.Loaded | protocol.Error
)


class Watchdog:
    """Watches one life of a worker.

    Answers say little of an engine: refusals, cancellations and other models' results go on while it hangs.
    So each engine that owes a step is watched by the steps its device has finished. Only where none does,
    answers show that calls do not get lost on their way to one.

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
        self._unanswered = 0
        """Ticks since the last answer, while there were requests and no engine owed a step."""
        self._engines: dict[str, EngineStatus] = {}
        """As the last `Stats` told."""
        self._still: Counter[str] = Counter()
        """Ticks since each engine's last step, while it owed one."""

    def hear(self, message: protocol.FromWorker) -> None:
        """The worker has sent this."""
        self._up = True
        self._silent = 0
        if isinstance(message, protocol.Stats):
            self._compare(message.engines)
        elif isinstance(message, _ANSWERS):
            self._unanswered = 0

    def _compare(self, engines: dict[str, EngineStatus]) -> None:
        for name, engine in engines.items():
            old = self._engines.get(name)
            if old is None or engine.steps != old.steps or not engine.owes_step:
                self._still[name] = 0
        self._engines = engines

    async def fault(self) -> str:
        """Return, with the reason, when the worker must be replaced."""
        while True:
            await asyncio.sleep(TICK_S)
            self._silent += 1
            owing = [name for name, engine in self._engines.items() if engine.owes_step]
            self._still.update(owing)
            self._unanswered = self._unanswered + 1 if self._usage.open_in_all and not owing else 0
            if (reason := self._reason()) is not None:
                return reason

    def _reason(self) -> str | None:
        step_s = self._config.step_timeout_s
        silence_s = self._config.heartbeat_timeout_s if self._up else step_s
        if self._silent >= _ticks(silence_s):
            return f"it has sent nothing for {silence_s:g} s"
        for name, engine in self._engines.items():
            if not engine.healthy:
                return f"the engine of {name} is broken"
            if self._still[name] >= _ticks(step_s):
                return f"{name} has taken no step for {step_s:g} s, and has work"
        if self._unanswered >= _ticks(step_s):
            return f"it has answered nothing for {step_s:g} s, and requests wait"
        return None


def _ticks(seconds: float) -> int:
    return math.ceil(seconds / HEARTBEAT_S)
