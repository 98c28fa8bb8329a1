"""A keyless server and the pages of other sites."""

import hashlib

import pytest

from carpool.gateway.config import GatewayConfig, KeyConfig
from tests.unit.gateway.serving import CHAT_PATH, Service, chat


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "box.lan:80"]
)
async def test_local_and_allowed_names_are_served(host: str) -> None:
    async with Service(GatewayConfig(allowed_hosts=("Box.lan",))).http(host=host) as http:
        assert (await http.get("/health/live")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::1", "a:b:c"])
@pytest.mark.parametrize("path", ["/health/live", "/v1/models", "/nothing"])
async def test_foreign_names_are_refused_and_the_setting_is_named(host: str, path: str) -> None:
    async with Service().http(host=host) as http:
        reply = await http.get(path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")
    assert "gateway.allowed_hosts" in reply.json()["error"]["message"]


async def test_all_names_can_be_allowed() -> None:
    async with Service(GatewayConfig(allowed_hosts=("*",))).http(host="evil.example") as http:
        assert (await http.get("/health/live")).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9999"])
async def test_a_foreign_page_is_refused_before_anything_runs(origin: str) -> None:
    service = Service()
    async with service.http(origin=origin) as http:
        reply = await http.post(CHAT_PATH, json=chat())
    assert reply.status_code == 403
    assert "gateway.cors_origins" in reply.json()["error"]["message"]
    assert "access-control-allow-origin" not in reply.headers
    assert not service.client.generates


async def test_its_own_pages_and_allowed_ones_are_served() -> None:
    async with Service().http(origin="http://localhost:8000") as http:
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 200
    service = Service(GatewayConfig(cors_origins=("https://chat.example.org",)))
    async with service.http(origin="https://chat.example.org") as http:
        reply = await http.post(CHAT_PATH, json=chat())
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "https://chat.example.org"
        preflight = await http.options(CHAT_PATH, headers={"access-control-request-method": "POST"})
        assert preflight.status_code == 200


async def test_with_keys_the_host_does_not_matter() -> None:
    key = KeyConfig(f"sha256:{hashlib.sha256(b'sk-a').hexdigest()}", "a")
    async with Service(GatewayConfig(keys=(key,))).http(
        host="ai.example.org", authorization="Bearer sk-a"
    ) as http:
        assert (await http.get("/v1/models")).status_code == 200
