"""Keeps a worker alive: one life after another, later and later while none comes up."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from carpool.worker.config import WorkerConfig
from carpool.worker.process import Life, Spawn, end

_log = logging.getLogger(__name__)

_FIRST_START_S = 10.0
"""How long a start is thought to take before one was seen."""
_LONGEST_ESTIMATE_S = 300.0


class Supervisor:
    """Runs `live` with one life of the worker after another; `live` returns when the life's stream ended.

    `live` calls `came_up` when the models are loaded, which makes the life a good one.
    """

    def __init__(self, config: WorkerConfig, spawn: Spawn, live: Callable[[Life], Awaitable[None]]) -> None:
        self.config = config
        """Of the next life."""
        self._spawn = spawn
        self._live = live
        self._failures = 0
        self._began_s = time.monotonic()
        self._start_took_s = _FIRST_START_S

    async def run(self) -> str:
        """Until cancelled, or until `restart_attempts` lives in a row ended before they came up.

        Returns how the last one ended. Whenever it returns or raises, no process of it is left.
        """
        while True:
            self._began_s = time.monotonic()
            self._failures += 1
            try:
                how = await self._one_life()
            except OSError as error:
                how = f"no process: {error}"
            except Exception as error:  # a fault of ours in one life must not be the end of all of them
                _log.exception("a fault ends this life of the worker")
                how = f"a fault of the gateway: {error!r}"
            if self._failures >= self.config.restart_attempts:
                _log.error("the worker ended (%s) and is given up", how)
                return how
            _log.warning("the worker ended (%s), the next one starts in %.1f s", how, self._delay_s)
            await asyncio.sleep(self._delay_s)

    async def _one_life(self) -> str:
        life = await self._spawn(self.config)
        try:
            await self._live(life)
        finally:
            how = await end(life)
        return how

    def came_up(self) -> None:
        """The present life has its models loaded."""
        self._failures = 0
        self._start_took_s = time.monotonic() - self._began_s

    def restart_s(self) -> float:
        """When the next life should be up if the present one ends now, in seconds from now."""
        return self._delay_s + self._start_took_s

    def start_left_s(self, percent: float) -> float:
        """When a model that is loaded to `percent` should be up, in seconds from now."""
        if percent <= 0:
            return self._start_took_s
        elapsed_s = time.monotonic() - self._began_s
        return min(max(elapsed_s * (100 - percent) / percent, 1.0), _LONGEST_ESTIMATE_S)

    @property
    def _delay_s(self) -> float:
        backoff_s = self.config.restart_backoff_s * 2.0 ** max(self._failures - 1, 0)
        return min(backoff_s, self.config.restart_backoff_max_s)
