"""The one thread that calls a model."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeAlias

from .errors import ModelThreadDied, WrongResultCount

ProcessFn: TypeAlias = Callable[[list[Any]], Collection[Any] | Awaitable[Collection[Any]]]
"""Items to one result each, in order. A result that is an exception fails its item only."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to: one result for each item, or the error of the whole call."""

    results: list[Any]
    error: Exception | None = None


def checked(results: Collection[Any], expected: int) -> Outcome:
    """The model function's return value, item by item; a wrong number of them is an error."""
    try:
        got = len(results)
    except TypeError:
        return Outcome([], WrongResultCount(expected, None))
    if got != expected:
        return Outcome([], WrongResultCount(expected, got))
    return Outcome(list(results))


@dataclass(slots=True, eq=False)
class _Job:
    function: ProcessFn
    items: list[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Outcome]


class ModelThread:
    """Runs calls one after another in one daemon thread, and in a new one if that should die.

    `async` functions run there too, on an event loop of the thread's own, so one that blocks by mistake holds
    up nobody else. What such a function awaits has to be made inside it, or belong to no loop.

    A thread of its own instead of a `ThreadPoolExecutor`: a pool lets `SystemExit` from a model through to
    the event loop, and holds up the exit of the process for a model that hangs.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] | None = None

    async def call(self, function: ProcessFn, items: list[Any]) -> Outcome:
        """Call `function(items)`; whatever it raises comes back as the outcome's error."""
        if self._jobs is None:
            self._jobs = SimpleQueue()
            threading.Thread(target=self._serve, args=(self._jobs,), name=self._name, daemon=True).start()
        loop = asyncio.get_running_loop()
        job = _Job(function, items, loop, loop.create_future())
        self._jobs.put(job)
        return await job.future

    def stop(self) -> None:
        """Let the thread end after the call it is in."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _serve(self, jobs: SimpleQueue[_Job | None]) -> None:
        runner = asyncio.Runner()  # makes its event loop when it is first needed
        alive = True
        try:
            while alive and (job := jobs.get()) is not None:
                outcome, alive = _run(job, runner)
                job.loop.call_soon_threadsafe(self._settle, job, outcome, None if alive else jobs)
                del job, outcome  # hold no data while waiting for the next call
        except RuntimeError:
            pass  # the caller's loop is closed: nobody waits any more
        finally:
            runner.close()

    def _settle(self, job: _Job, outcome: Outcome, dead: SimpleQueue[_Job | None] | None) -> None:
        if dead is not None and self._jobs is dead:
            self._jobs = None
        if not job.future.done():
            job.future.set_result(outcome)


def _run(job: _Job, runner: asyncio.Runner) -> tuple[Outcome, bool]:
    """The call's outcome, and whether the thread may go on."""
    try:
        results = job.function(job.items)
        if inspect.isawaitable(results):
            results = runner.run(_awaited(results))
        return checked(results, len(job.items)), True
    except Exception as error:  # the model's own error: the scheduler's business
        return Outcome([], error), True
    except BaseException as error:  # meant to end this thread, and it does
        death = ModelThreadDied(f"the model function ended its thread: {error!r}")
        death.__cause__ = error
        return Outcome([], death), False


async def _awaited(results: Awaitable[Collection[Any]]) -> Collection[Any]:
    return await results
