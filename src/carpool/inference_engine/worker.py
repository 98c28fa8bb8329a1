"""The loop that keeps a scheduler running."""

from __future__ import annotations

import asyncio

from .batch_scheduler import BatchScheduler
from .errors import EngineStopped


class InferenceWorker:
    """Runs a scheduler's steps, as many at a time as it allows, from `start` until `stop`.

    However it ends, every task it was responsible for has an outcome: nobody is left waiting.
    """

    def __init__(self, scheduler: BatchScheduler) -> None:
        self._scheduler = scheduler
        self._loop_task: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    def start(self) -> asyncio.Task[None]:
        """Start on the running event loop; returns the task, the same one if it was started before."""
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._run(), name=f"{self._scheduler.name}-worker")
        return self._loop_task

    @property
    def healthy(self) -> bool:
        """False once the loop has failed."""
        return self._error is None

    async def stop(self, *, drain: bool = True) -> None:
        """Refuse new tasks, finish what waits, and end.

        With `drain=False` only the batch that is with the model is finished, and what waits gets
        `EngineStopped`. To bound the time, wrap it in `asyncio.timeout`: when that strikes, whatever is left
        gets `EngineStopped` and a hanging model call is left behind in its thread.
        """
        stopped = EngineStopped("the engine stopped before it reached this task")
        queue = self._scheduler.queue
        queue.close()
        if self._loop_task is None:
            self._scheduler.abandon(stopped)
            return
        if not drain:
            queue.fail_all(stopped)
        await self._loop_task  # a cancelled stop cancels the loop, too

    async def _run(self) -> None:
        error = EngineStopped("the engine stopped before it finished this task")
        steps = [asyncio.create_task(self._steps()) for _ in range(self._scheduler.concurrency)]
        try:
            await asyncio.gather(*steps)
        except Exception as cause:
            self._error = error.__cause__ = cause
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the engine {self._scheduler.name} failed", "exception": cause}
            )
            raise
        finally:
            for each in steps:
                each.cancel()
            self._scheduler.abandon(error)

    async def _steps(self) -> None:
        while await self._scheduler.step():
            pass
