"""Puts the gateway together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, request_response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from carpool.cache.service import AnswerCache
from carpool.gateway.admission import Admission
from carpool.gateway.auth import Authentication, Scoped
from carpool.gateway.cache_admin import CacheAdmin
from carpool.gateway.cache_study import CacheStudy
from carpool.gateway.chat import ChatCompletions
from carpool.gateway.completions import Completions
from carpool.gateway.config import GatewayConfig, Scope
from carpool.gateway.dashboard import Dashboard
from carpool.gateway.docs import docs, openapi
from carpool.gateway.drain import Drain
from carpool.gateway.embeddings import Embeddings
from carpool.gateway.front_door import FrontDoor
from carpool.gateway.health import live, ready
from carpool.gateway.host_guard import HostGuard
from carpool.gateway.key_ring import KeyRing
from carpool.gateway.live_settings import SettingsAdmin
from carpool.gateway.loop_lag import watch_loop_lag
from carpool.gateway.metrics import GatewayMetrics, metrics_page
from carpool.gateway.model_admin import ModelAdmin
from carpool.gateway.models import Endpoint, list_models, one_model
from carpool.gateway.openapi import openapi_document
from carpool.gateway.rerank import Rerank
from carpool.gateway.routes import Routes
from carpool.gateway.services import Services
from carpool.telemetry import Registry
from carpool.worker.client import WorkerClient


class Gateway(FastAPI):
    """FastAPI without the layers it adds: the front door ends every request itself, whatever happens."""

    def build_middleware_stack(self) -> ASGIApp:
        """See `_middleware`; behind it the routes."""
        app: ASGIApp = Routes(self.routes, self.router)
        for layer, args, kwargs in reversed(self.user_middleware):
            app = layer(app, *args, **kwargs)
        return app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """As Starlette's, in one step."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def create_app(
    config: GatewayConfig, client: WorkerClient, cache: AnswerCache | None, registry: Registry
) -> FastAPI:
    """The ASGI application. Starting and stopping the client and the cache is the caller's.

    `app.state.drain.begin()` is the first step of a graceful stop: new requests are refused and endless
    streams end, so that a server that waits for its connections to close does not wait for ever.
    """
    drain = Drain()
    admission = Admission(config.max_concurrent_requests)
    services = Services(config, client, cache, admission, GatewayMetrics(registry))
    dashboard = Dashboard(services, drain)
    rerank = Rerank(services)
    cache_admin, cache_study = CacheAdmin(services), CacheStudy(services)
    model_admin = ModelAdmin(services)
    settings_admin = SettingsAdmin(services, model_admin)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(dashboard.run()),
            asyncio.create_task(watch_loop_lag(services.metrics.loop_lag, services.metrics.loop_delay)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    app = Gateway(
        title="Carpool",
        openapi_url=None,  # a route below, which asks for a key
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it has its own
        lifespan=lifespan,
        routes=[
            _route("POST", "/v1/chat/completions", ChatCompletions(services), "inference"),
            _route("POST", "/v1/completions", Completions(services), "inference"),
            _route("POST", "/v1/embeddings", Embeddings(services), "inference"),
            *(_route("POST", path, rerank, "inference") for path in ("/rerank", "/v1/rerank", "/v2/rerank")),
            _route("GET", "/v1/models", _page(list_models(client)), "inference"),
            _route("GET", "/v1/models/{model_id:path}", _page(one_model(client)), "inference"),
            _route("GET", "/health/live", _page(live), None),
            _route("GET", "/health/ready", _page(ready(client, drain)), None),
            _route("GET", "/metrics", _page(metrics_page(registry, client.snapshots)), "metrics"),
            _route("GET", "/dashboard", _page(dashboard.page), "metrics"),
            _route("GET", "/dashboard/feed", dashboard.feed, "metrics"),
            _route("GET", "/admin/cache", _page(cache_admin.status), "admin"),
            _route("GET", "/admin/cache/entries", _page(cache_admin.entries), "admin"),
            _route("GET", "/admin/cache/export", cache_admin.export, "admin"),
            _route("POST", "/admin/cache/invalidate", cache_admin.invalidate, "admin"),
            _route("GET", "/admin/cache/audits", _page(cache_admin.audits), "admin"),
            _route("POST", "/admin/cache/audits/{audit_id}", cache_admin.judge, "admin"),
            _route("POST", "/admin/cache/eval", cache_study.evaluate, "admin"),
            _route("POST", "/admin/cache/calibrate", cache_study.calibrate, "admin"),
            _route("GET", "/admin/models", _page(model_admin.list), "admin"),
            _route("POST", "/admin/models/{model_id:path}/load", _page(model_admin.load), "admin"),
            _route("POST", "/admin/models/{model_id:path}/unload", _page(model_admin.unload), "admin"),
            _route("GET", "/admin/models/{model_id:path}", _page(model_admin.one), "admin"),
            _route("PATCH", "/admin/models/{model_id:path}", settings_admin.change_model, "admin"),
            _route("GET", "/admin/settings", _page(settings_admin.show), "admin"),
            _route("PATCH", "/admin/settings", settings_admin.change, "admin"),
            _route("GET", "/docs", _page(docs), None),
            _route("GET", "/openapi.json", _page(openapi), None),
        ],
        middleware=_middleware(config, services.metrics, drain),
        redirect_slashes=False,
    )
    document: dict[str, Any] = openapi_document()
    app.openapi = lambda: document  # type: ignore[method-assign]
    app.state.drain = drain
    return app


def _middleware(config: GatewayConfig, metrics: GatewayMetrics, drain: Drain) -> list[Middleware]:
    """From the outside in. A preflight carries no key, so CORS comes before authentication."""
    layers = [Middleware(FrontDoor, metrics=metrics, drain=drain)]
    if config.cors_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=config.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "retry-after", "x-carpool-cache", "x-carpool-model"],
            )
        )
    keys = KeyRing(config)
    layers.append(Middleware(HostGuard, config=config, keys=keys))
    layers.append(Middleware(Authentication, keys=keys))
    return layers


def _route(method: str, path: str, endpoint: ASGIApp, scope: Scope | None) -> Route:
    """A route cannot be made without saying which scope it asks for; None: any key."""
    return Route(path, Scoped(endpoint, path, scope), methods=[method])


def _page(endpoint: Endpoint) -> ASGIApp:
    return request_response(endpoint)
