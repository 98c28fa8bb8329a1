"""From a request's path to its endpoint."""

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from carpool.errors import CarpoolError, MethodNotAllowed, NotFound
from carpool.gateway.call import Call
from carpool.gateway.error_reply import send_error


class Routes:
    """The innermost layer: looks up what has a fixed path, and lets the router search for the rest.

    What the router finds wrong becomes the envelope. A 405 comes with the methods that are allowed.
    """

    def __init__(self, routes: Sequence[BaseRoute], router: ASGIApp) -> None:
        self._router = router
        self._fixed: dict[tuple[str, str], ASGIApp] = {
            (method, route.path): route.app
            for route in routes
            if isinstance(route, Route) and "{" not in route.path
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        endpoint = self._fixed.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            await _refuse(error, scope, send)


async def _refuse(error: HTTPException, scope: Scope, send: Send) -> None:
    path = scope["path"][:200]
    refusal: CarpoolError = NotFound(f"There is no {path} here; /docs tells what there is.")
    headers: list[tuple[bytes, bytes]] = []
    if error.status_code == 405:
        refusal = MethodNotAllowed(f"{path} does not take {scope['method']}.")
        headers = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    Call.of(scope).error = refusal.code
    await send_error(send, refusal, headers)
