"""Who is asking: keys to tenant and scopes, before routing; and what a route demands, behind it."""

import base64
import binascii

from starlette.types import ASGIApp, Receive, Scope, Send

from carpool.errors import Forbidden, InvalidKey
from carpool.gateway.call import Call, header
from carpool.gateway.config import Scope as KeyScope
from carpool.gateway.error_reply import send_error
from carpool.gateway.key_ring import KeyRing

OPEN = frozenset({"/health/live", "/health/ready"})
"""The paths that answer without a key."""

_PAGES = ("/dashboard", "/docs", "/openapi.json", "/metrics")
"""What people open in a browser, which asks for the key as the password of HTTP Basic."""


class Authentication:
    """Nothing but `OPEN` gets past it without a known key. Where none is needed all is `local`'s."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http":
            call, path = Call.of(scope), scope["path"]
            if not self._keys.closed:
                call.tenant, call.scopes = "local", frozenset({"inference", "metrics", "admin"})
            elif path not in OPEN:
                limits = self._keys.identify(_presented(scope, is_page(path)))
                if limits is None:
                    error = InvalidKey("A valid API key is needed: `Authorization: Bearer <key>`.")
                    call.error = error.code
                    challenge = b'Basic realm="carpool"' if is_page(path) else b"Bearer"
                    await send_error(send, error, [(b"www-authenticate", challenge)])
                    return
                key, call.limits = limits.key, limits
                call.tenant, call.key, call.scopes = key.tenant, key.name, frozenset(key.scopes)
                call.cache, call.per_user = key.cache, key.cache_scope == "user"
        await self._app(scope, receive, send)


class Scoped:
    """A route's endpoint, for keys with the given scope only; None: for every key."""

    def __init__(self, app: ASGIApp, route: str, scope: KeyScope | None) -> None:
        self._app = app
        self._route = route
        self._scope = scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        call = Call.of(scope)
        call.route = self._route
        if self._scope is not None and self._scope not in call.scopes:
            raise Forbidden(f"The key does not have the scope `{self._scope}`.")
        await self._app(scope, receive, send)


def is_page(path: str) -> bool:
    """Whether a browser opens this path."""
    return path.startswith(_PAGES)


def _presented(scope: Scope, page: bool) -> bytes | None:
    """The key that a request carries. Basic for pages only: browsers send it unasked, from any site."""
    scheme, _, value = (header(scope, b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip() or None
    if scheme.lower() == b"basic" and page:
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2] or None
        except binascii.Error:
            return None
    return None
