"""What docs/security.md promises and no other test here proves."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

from carpool.gateway.config import GatewayConfig, KeyConfig
from tests.unit.gateway.serving import CHAT_PATH, Service, chat


async def test_a_body_that_does_not_end_is_given_up() -> None:
    service = Service(GatewayConfig(request_timeout_s=0.05))

    async def never_ending() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with service.http() as http:
        reply = await http.post(CHAT_PATH, content=never_ending())
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert (await http.post(CHAT_PATH, json=chat())).status_code == 200
    assert len(service.client.generates) == 1


async def test_users_behind_one_key_share_nothing_where_that_is_set() -> None:
    digest = hashlib.sha256(b"sk-front").hexdigest()
    key = KeyConfig(f"sha256:{digest}", "front", cache_scope="user")
    service = Service(GatewayConfig(keys=(key,)), cached=True)
    async with service.http(authorization="Bearer sk-front") as http:
        outcomes = [
            (await http.post(CHAT_PATH, json=chat(**fields))).headers["x-carpool-cache"]
            for fields in ({"user": "ann"}, {"user": "ann"}, {"user": "bob"}, {}, {})
        ]
    assert outcomes == ["miss", "exact", "miss", "bypass", "bypass"]


async def test_the_key_is_in_no_reply() -> None:
    key = KeyConfig(f"sha256:{hashlib.sha256(b'sk-secret').hexdigest()}", "all", ("inference", "admin"))
    service = Service(GatewayConfig(keys=(key,)))
    async with service.http(authorization="Bearer sk-secret") as http:
        for path in ("/admin/settings", "/admin/models", "/v1/models", "/nothing", "/metrics"):
            reply = await http.get(path)
            told = reply.text + json.dumps(dict(reply.headers))
            assert "sk-secret" not in told
            assert key.hash.removeprefix("sha256:") not in told
