"""What is known of one HTTP request, in the ASGI scope's state from the front door on."""

import re
import time
from random import Random

import msgspec
from starlette.types import Scope

from carpool.cache.config import Mode
from carpool.gateway.key_limits import KeyLimits

Headers = list[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_random = Random()  # noqa: S311  # ids are to differ, not to be secret, and the system's source is a call away


class Call(msgspec.Struct):
    """One HTTP request: who asks, where it went, how it ended."""

    request_id: str
    headers: dict[bytes, bytes]
    """The first value of each of the request's headers, by its name in lower case."""
    began: float = msgspec.field(default_factory=time.perf_counter)
    """By `time.perf_counter()`."""
    tenant: str = ""
    key: str = "-"
    """The name of the key it came with."""
    limits: KeyLimits | None = None
    """What the key may do at most; None without a key."""
    scopes: frozenset[str] = frozenset()
    cache: Mode | None = None
    """How answers are cached for the key, where that is set."""
    per_user: bool = False
    """Whether the key's cached answers are kept apart by end user."""
    route: str = "other"
    """The path template it matched; a label of metrics."""
    status: int = 0
    """What was sent, or 499 where the client left first; 0 until then."""
    error: str | None = None
    """The code of the error it ended with, told before or within the reply."""

    @classmethod
    def open(cls, scope: Scope) -> "Call":
        """Give a request its `Call`. A client's `x-request-id` is kept if it is fit to be repeated."""
        headers = dict(reversed(scope["headers"]))
        offered = headers.get(b"x-request-id")
        fit = offered is not None and _REQUEST_ID.fullmatch(offered) is not None
        request_id = offered.decode() if offered and fit else f"req-{_random.getrandbits(96):024x}"
        call = cls(request_id, headers)
        scope.setdefault("state", {})["call"] = call
        return call

    @staticmethod
    def of(scope: Scope) -> "Call":
        """The `Call` of a request that came through the front door."""
        call: Call = scope["state"]["call"]
        return call

    @property
    def age_s(self) -> float:
        """Seconds since it came."""
        return time.perf_counter() - self.began


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a header of a request that came through the front door; `name` in lower case."""
    return Call.of(scope).headers.get(name)
