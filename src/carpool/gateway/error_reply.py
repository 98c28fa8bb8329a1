"""Errors as OpenAI's envelope: `{"error": {message, type, param, code}}`."""

import math

import msgspec
from starlette.types import Send

from carpool.errors import CarpoolError
from carpool.gateway.call import Headers

_RETRY_AFTER_S = 1
_HOPELESS_RETRY_AFTER_S = 60
"""For a 503 that trying again soon does not change."""


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: ErrorBody


def envelope(error: CarpoolError) -> bytes:
    """The body of an error, also used as the last event of a stream."""
    return msgspec.json.encode(ErrorReply(ErrorBody(error.message, error.type, error.param, error.code)))


def error_headers(error: CarpoolError) -> Headers:
    """What tells a client whether and when to try again."""
    headers: Headers = [(b"x-should-retry", b"true" if error.retryable else b"false")]
    if error.status in (429, 503):
        after_s = error.retry_after_s
        if after_s is None or not math.isfinite(after_s):
            after_s = _RETRY_AFTER_S if error.retryable else _HOPELESS_RETRY_AFTER_S
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(after_s))))
    return headers


async def send_error(send: Send, error: CarpoolError, headers: Headers | None = None) -> None:
    """Answer a request with an error."""
    body = envelope(error)
    start = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *error_headers(error),
        *(headers or []),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": start})
    await send({"type": "http.response.body", "body": body})
