"""The link to a worker: its lives, the connection to the present one, and what it tells of itself."""

import asyncio
import contextlib
import logging
from dataclasses import replace

from carpool import telemetry
from carpool.errors import CarpoolError, Draining, WorkerDied
from carpool.worker import protocol
from carpool.worker.config import WorkerConfig
from carpool.worker.connection import Connection, News
from carpool.worker.model_manager import ModelManager
from carpool.worker.process import Life, Spawn
from carpool.worker.states import ModelStates
from carpool.worker.supervisor import Supervisor
from carpool.worker.usage import ModelUsage
from carpool.worker.watchdog import Watchdog

_log = logging.getLogger(__name__)


class WorkerLink:
    """Keeps a worker alive and has its models loaded in each life; `states` tells how far that is."""

    def __init__(
        self,
        config: WorkerConfig,
        spawn: Spawn,
        states: ModelStates,
        manager: ModelManager,
        usage: ModelUsage,
    ) -> None:
        self.connection: Connection | None = None
        """To the present life."""
        self.draining = False
        """Nothing new is taken, for good."""
        self.given_up: str | None = None
        """Why there will be no further life."""
        self._states = states
        self._manager = manager
        self._usage = usage
        self._supervisor = Supervisor(replace(config, models=()), spawn, self._live)
        self._supervision: asyncio.Task[None] | None = None
        self._stats: protocol.Stats | None = None

    @property
    def metrics(self) -> telemetry.Snapshot | None:
        """The worker's newest; None while it has told none in this life."""
        return None if self._stats is None else self._stats.metrics

    def configure(self, config: WorkerConfig) -> None:
        """Settings of the next life."""
        self._supervisor.config = replace(config, models=())

    def start(self) -> None:
        """Start the worker; returns before it is up."""
        self._supervision = asyncio.create_task(self._supervise())

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, let open calls finish for so long, and end; see `WorkerClient.stop`."""
        self.draining = True
        self._states.announce()
        await self._manager.cancel()
        if self.connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self.connection.idle()
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})

    def refusal(self) -> CarpoolError:
        """What a call gets that the worker cannot take or finish."""
        if self.draining:
            return Draining("The server is shutting down.")
        return WorkerDied(
            "The process that runs the model ended and is being restarted.",
            retry_after_s=self._supervisor.restart_s(),
        )

    def start_left_s(self, percent: float) -> float:
        """When a model that is loaded to `percent` should be up, in seconds from now."""
        return self._supervisor.start_left_s(percent)

    async def _supervise(self) -> None:
        how = await self._supervisor.run()
        self.given_up = f"the worker process does not stay up ({how})"
        for name in self._states.by_name:
            self._states.update(name, phase="failed", error=self.given_up)
        self._states.announce()

    async def _live(self, life: Life) -> None:
        """One life: load the models and route messages until it ends."""
        watchdog = Watchdog(self._supervisor.config, self._usage)
        connection = self.connection = Connection(life, self._hear, watchdog)
        self._manager.begin_life(connection, self._supervisor.came_up)
        try:
            await connection.serve()
        finally:
            self.connection = self._stats = None
            await self._manager.end_life()
            connection.end(self.refusal)

    def _hear(self, news: News) -> None:
        match news:
            case protocol.Progress():
                self._states.update(
                    news.model,
                    phase=news.phase,
                    percent=news.percent,
                    done_bytes=news.done_bytes,
                    total_bytes=news.total_bytes,
                )
            case protocol.Stats():
                self._stats = news
            case protocol.Hello():
                _log.debug("worker %s is up", news.epoch)
