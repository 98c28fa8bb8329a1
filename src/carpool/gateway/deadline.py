"""When a request's time is up: as the server allows, or sooner where the client says so."""

import asyncio
import re
from types import TracebackType

from starlette.types import Scope

from carpool.errors import DeadlineExceeded, InvalidRequest
from carpool.gateway.call import Call

HEADER = "x-request-timeout"
_HEADER = HEADER.encode()
_SECONDS = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")


class Deadline:
    """A point in time, `limit_s` after the request came; None: never."""

    def __init__(self, call: Call, limit_s: float | None) -> None:
        self._call = call
        self._limit_s = limit_s

    @classmethod
    def of(cls, scope: Scope, longest_s: float | None) -> "Deadline":
        """The earlier of `longest_s` and the header `x-request-timeout`, in seconds.

        Raises `InvalidRequest` for a header that is no number above 0.
        """
        call = Call.of(scope)
        wish = call.headers.get(_HEADER)
        if wish is None or longest_s is None:
            return cls(call, longest_s)
        seconds = float(wish) if _SECONDS.fullmatch(wish) else 0.0
        if seconds <= 0:
            raise InvalidRequest(f"The header {HEADER} must be a number of seconds above 0.", param=HEADER)
        return cls(call, min(seconds, longest_s))

    @property
    def left_s(self) -> float | None:
        """Seconds until then; 0 when it has passed."""
        return None if self._limit_s is None else max(0.0, self._limit_s - self._call.age_s)

    def exceeded(self, what: str) -> DeadlineExceeded:
        """The error for what did not come in time."""
        return DeadlineExceeded(f"{what} within {self._limit_s:g} s.")


class TimeLimit:
    """An async context manager whose block is cancelled at a deadline, which raises `DeadlineExceeded`.

    Does what `asyncio.timeout` does in a fraction of its time, which every request takes.
    """

    def __init__(self, deadline: Deadline, what: str) -> None:
        """`what` is told to have not happened in time."""
        self._deadline = deadline
        self._what = what
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._reason: Exception | None = None
        """Why the block was cancelled from here."""

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        if (left_s := self._deadline.left_s) is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left_s, self._expire)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._reason is None or self._task is None:
            return
        # Cancelled by somebody else, too, it stays cancelled.
        if not self._task.uncancel() and kind is asyncio.CancelledError:
            raise self._reason from None

    def _expire(self) -> None:
        self.end(self._deadline.exceeded(self._what))

    def end(self, reason: Exception) -> None:
        """Cancel the block, which then raises this."""
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()
