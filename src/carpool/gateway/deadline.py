"""When a request's time is up: as the server allows, or sooner where the client says so."""

import re

from starlette.types import Scope

from carpool.errors import DeadlineExceeded, InvalidRequest
from carpool.gateway.call import Call, header

HEADER = "x-request-timeout"
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
        call, wish = Call.of(scope), header(scope, HEADER.encode())
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
