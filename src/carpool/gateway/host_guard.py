"""What a keyless server believes of a browser: a page of another site must not use it."""

from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from carpool.errors import Forbidden
from carpool.gateway.call import header
from carpool.gateway.config import GatewayConfig
from carpool.gateway.key_ring import KeyRing

_OWN_NAMES = ("localhost", "127.0.0.1", "::1")


class HostGuard:
    """Refuses foreign `Host` names (DNS rebinding) and the requests of foreign pages (`Origin`).

    Only for keyless servers: with keys, a page that has none gets nothing anyway.
    """

    def __init__(self, app: ASGIApp, config: GatewayConfig, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys
        self._hosts = frozenset(
            name.lower().strip("[]") for name in (*_OWN_NAMES, config.host, *config.allowed_hosts)
        )
        self._origins = frozenset(origin.lower() for origin in config.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http" and not self._keys.was_closed:
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host = _text(header(scope, b"host"))
        name = _name(f"//{host}")
        if "*" not in self._hosts and name not in self._hosts:
            raise Forbidden(
                f"The host name {name!r} is not one of this server's. Without keys it answers to local names "
                "and those in the setting gateway.allowed_hosts (CARPOOL_GATEWAY__ALLOWED_HOSTS)."
            )
        origin = header(scope, b"origin")
        if origin is None or {"*", _text(origin)} & self._origins:
            return
        if _text(origin).partition("://")[2] != host:
            raise Forbidden(
                f"Pages of {_text(origin)!r} may not use this server; the setting gateway.cors_origins "
                "(CARPOOL_GATEWAY__CORS_ORIGINS) lists those that may."
            )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1").lower()


@lru_cache(256)
def _name(url: str) -> str:
    """The host name of an URL without its port; empty where there is none to be found."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
