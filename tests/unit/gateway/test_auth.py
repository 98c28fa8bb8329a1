"""Who gets in: every route and unknown paths, with no key, a wrong one, and one of each scope."""

import base64
import hashlib
import hmac
from typing import Any

import httpx2
import pytest
from starlette.routing import Route

from carpool.gateway.config import GatewayConfig, KeyConfig, Scope
from tests.unit.gateway.serving import CHAT_PATH, RawCall, Service, chat

KEYS: dict[str, tuple[Scope, ...]] = {
    "ask": ("inference",),
    "watch": ("metrics",),
    "run": ("admin",),
    "all": ("inference", "metrics", "admin"),
}
UNKNOWN = [
    "/",
    "/v1",
    "/v1/nothing",
    "/admin",
    "/healthy",
    "/health",
    "//health/live",
    "/health/",
    "/health/other",
    "/health/live/",
    "/health%2Flive/x",
    "/V1/models",
    "/admin/",
    "/admin/nothing",
    "/admin/keys",
    "/docs/x",
    "/static/x",
    "/favicon.ico",
]
SCOPES: dict[str, Scope | None] = {
    "/v1/chat/completions": "inference",
    "/v1/completions": "inference",
    "/v1/embeddings": "inference",
    "/rerank": "inference",
    "/v1/rerank": "inference",
    "/v2/rerank": "inference",
    "/v1/models": "inference",
    "/v1/models/{model_id:path}": "inference",
    "/metrics": "metrics",
    "/dashboard": "metrics",
    "/dashboard/feed": "metrics",
    "/admin/cache": "admin",
    "/admin/cache/entries": "admin",
    "/admin/cache/export": "admin",
    "/admin/cache/invalidate": "admin",
    "/admin/cache/audits": "admin",
    "/admin/cache/audits/{audit_id}": "admin",
    "/admin/cache/eval": "admin",
    "/admin/cache/calibrate": "admin",
    "/admin/models": "admin",
    "/admin/models/{model_id:path}": "admin",
    "/admin/models/{model_id:path}/load": "admin",
    "/admin/models/{model_id:path}/unload": "admin",
    "/admin/settings": "admin",
    "/docs": None,
    "/openapi.json": None,
}
OPEN = {"/health/live", "/health/ready"}


def keyed() -> Service:
    keys = tuple(
        KeyConfig(
            f"sha256:{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()}", name, scopes, f"tenant-{name}"
        )
        for name, scopes in KEYS.items()
    )
    return Service(GatewayConfig(keys=keys), cached=True)


def routes(service: Service) -> list[tuple[str, str]]:
    """(method, path template) of everything that is routed."""
    found = []
    for route in service.app.routes:
        assert isinstance(route, Route)
        found += [(method, route.path) for method in sorted(route.methods or ())]
    return found


async def call(http: httpx2.AsyncClient, method: str, path: str) -> httpx2.Response:
    return await http.request(method, path.replace("{model_id:path}", "parrot"))


def test_the_table_here_covers_every_route() -> None:
    assert {path for _, path in routes(keyed())} == SCOPES.keys() | OPEN


@pytest.mark.parametrize(
    "authorization",
    [
        {},
        {"authorization": "Bearer sk-wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer"},
        {"authorization": "sk-all"},
        {"authorization": "Basic " + base64.b64encode(b":sk-wrong").decode()},
        {"authorization": "Basic ???"},
        {"authorization": "Bearer " + hashlib.sha256(b"sk-all").hexdigest()},
        {"x-api-key": "sk-all"},
    ],
)
async def test_without_a_key_only_health_answers(authorization: dict[str, str]) -> None:
    service = keyed()
    async with service.http(**authorization) as http:
        for method, path in [*routes(service), *(("GET", path) for path in UNKNOWN)]:
            for tried in (method, "OPTIONS", "DELETE"):
                reply = await call(http, tried, path)
                if path in OPEN:
                    assert reply.status_code == (405 if tried in ("OPTIONS", "DELETE") else 200)
                else:
                    assert reply.status_code == 401, (tried, path)
                    assert reply.headers["www-authenticate"]
                    assert tried == "HEAD" or reply.json()["error"]["code"] == "invalid_api_key"
                assert reply.headers["x-request-id"]
    assert not service.client.generates


@pytest.mark.parametrize("name", KEYS)
async def test_a_key_opens_what_its_scopes_cover(name: str) -> None:
    service = keyed()
    async with service.http(authorization=f"Bearer sk-{name}") as http:
        for method, path in routes(service):
            if path == "/dashboard/feed" and "metrics" in KEYS[name]:
                continue  # never ends; the dashboard's own tests read it
            reply = await call(http, method, path)
            scope = SCOPES.get(path)
            if scope is None or scope in KEYS[name]:
                # Let in. The bodies are missing, which is for the endpoint to say.
                expected = 202 if path.endswith("/load") else 400 if method in ("POST", "PATCH") else 200
                assert reply.status_code == expected, (method, path)
            else:
                assert reply.status_code == 403, (method, path)
                assert method == "HEAD" or reply.json()["error"]["code"] == "forbidden"
        for path in UNKNOWN:
            assert (await call(http, "GET", path)).status_code == 404


async def test_the_key_decides_the_tenant() -> None:
    service = keyed()
    for name in ("ask", "all"):
        async with service.http(authorization=f"bearer sk-{name}") as http:
            assert (await http.post(CHAT_PATH, json=chat())).status_code == 200
    assert [request.tenant for request in service.client.generates] == ["tenant-ask", "tenant-all"]


async def test_without_configured_keys_everybody_is_local() -> None:
    service = Service()
    async with service.http(authorization="Bearer whatever") as http:
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 200
        assert (await http.get("/metrics")).status_code == 200
    assert service.client.generates[0].tenant == "local"


async def test_browsers_may_send_the_key_as_a_password_for_pages_only() -> None:
    service = keyed()
    password = base64.b64encode(b"me:sk-all").decode()
    async with service.http(authorization=f"Basic {password}") as http:
        assert (await http.get("/dashboard")).status_code == 200
        assert (await http.get("/docs")).status_code == 200
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 401
    async with service.http() as http:
        assert (await http.get("/dashboard")).headers["www-authenticate"].startswith("Basic")
        assert (await http.get("/v1/models")).headers["www-authenticate"] == "Bearer"


async def test_every_hash_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def counted(known: bytes, presented: bytes) -> bool:
        compared.append((known, presented))
        return compare(known, presented)

    monkeypatch.setattr("carpool.gateway.key_ring.hmac.compare_digest", counted)
    for presented in ("sk-ask", "sk-all", "sk-wrong"):
        compared.clear()
        async with keyed().http(authorization=f"Bearer {presented}") as http:
            await http.get("/v1/models")
        assert len(compared) == len(KEYS)  # whichever it is, and if it is none
        assert {len(each) for pair in compared for each in pair} == {32}


@pytest.mark.parametrize(
    "path",
    ["/health/live/../../v1/models", "/health/../admin/settings", "/health//live", "\\health/live", ""],
)
async def test_paths_that_are_written_oddly_open_nothing(path: str) -> None:
    """As they come over the wire: HTTP clients would tidy them up."""
    call = RawCall(keyed().app, path, b"{}")
    await call.leave()
    assert call.status == 401


@pytest.mark.parametrize("path", ["/v1/models", "/admin/models", "/dashboard/feed", "/nothing"])
async def test_websockets_are_refused(path: str) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await keyed().app({"type": "websocket", "path": path, "headers": [], "state": {}}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
