"""The outermost layer: every request gets an id, a log line, its place in the metrics and a defined end."""

import logging
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carpool.errors import CarpoolError, Draining, PayloadTooLarge
from carpool.gateway.call import Call
from carpool.gateway.drain import Drain
from carpool.gateway.error_reply import send_error
from carpool.gateway.exchange import ClientDisconnected
from carpool.gateway.metrics import GatewayMetrics

_access = logging.getLogger("carpool.access")
_log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""Nginx's status for a client that did not wait; seen in logs and metrics only."""


class FrontDoor:
    """Turns whatever the inner layers raise into the reply it stands for."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, drain: Drain) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call.open(scope)

        def named_send(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", call.request_id.encode())]
            return send(message)

        self._metrics.in_flight.value += 1
        try:
            if self._drain.begun and not scope["path"].startswith("/health/"):
                raise Draining("The server is shutting down.")
            await self._app(scope, receive, named_send)
        except ClientDisconnected:
            call.status = CLIENT_LEFT
        except Exception as error:
            await self._fail(call, error, named_send)
        finally:
            self._metrics.in_flight.value -= 1
            self._record(scope, call)

    async def _fail(self, call: Call, error: Exception, send: Send) -> None:
        if not isinstance(error, CarpoolError):
            _log.error("request %s failed", call.request_id, exc_info=error)
            error = CarpoolError("The server failed while it worked on this request.")
        call.error = error.code
        if call.status == 0:
            # What is left of a body that is too large is not worth reading.
            close = [(b"connection", b"close")] if isinstance(error, PayloadTooLarge) else []
            await send_error(send, error, close)
        # Otherwise the reply is under way, and ends here, visibly short of its announced end.

    def _record(self, scope: Scope, call: Call) -> None:
        method, seconds = scope["method"], call.age_s
        self._metrics.finished(call, method, seconds)
        if _access.isEnabledFor(logging.INFO):
            # The raw path is percent-encoded, so it cannot forge a line; the query string may hold secrets.
            path = scope.get("raw_path", b"")[:256].decode("ascii", "backslashreplace")
            _access.info(
                "method=%s path=%s status=%d ms=%.1f key=%s id=%s%s",
                method,
                path,
                call.status,
                seconds * 1e3,
                call.key,
                call.request_id,
                f" error={call.error}" if call.error else "",
            )
