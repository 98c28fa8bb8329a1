"""Settings that are not safe or make no sense stop the start."""

from typing import Any

import pytest

from carpool.errors import StartError
from carpool.gateway.config import GatewayConfig, KeyConfig

HASH = "sha256:" + "0" * 64


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_a_public_address_needs_a_key(host: str) -> None:
    with pytest.raises(StartError, match="keys"):
        GatewayConfig(host=host)
    assert not GatewayConfig(host=host, keys=(KeyConfig(HASH, "web"),)).is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_a_loopback_address_needs_none(host: str) -> None:
    assert GatewayConfig(host=host).is_loopback


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"port": 70000}, "port"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_concurrent_requests": 0}, "max_concurrent_requests"),
        ({"max_embedding_inputs": 0}, "max_embedding_inputs"),
        ({"request_timeout_s": float("nan")}, "request_timeout_s"),
        ({"embeddings_token_ids": "maybe"}, "embeddings_token_ids"),
        ({"cors_origins": ("chat.example.org",)}, "cors_origins"),
        ({"keys": (KeyConfig(HASH, "a"), KeyConfig(HASH, "a"))}, "keys"),
    ],
)
def test_a_bad_value_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(StartError, match=named):
        GatewayConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"hash": "sk-a-key-itself", "name": "web"},
        {"hash": "sha256:" + "0" * 63, "name": "web"},
        {"hash": HASH, "name": ""},
        {"hash": HASH, "name": "two words"},
        {"hash": HASH, "name": "web", "tenant": "a\nb"},
        {"hash": HASH, "name": "web", "scopes": ("everything",)},
    ],
)
def test_a_bad_key_is_refused_without_repeating_its_hash(fields: dict[str, Any]) -> None:
    with pytest.raises(StartError, match="keys") as refused:
        KeyConfig(**fields)
    assert fields["hash"] not in refused.value.message


def test_a_key_is_a_tenant_of_its_own() -> None:
    assert KeyConfig(HASH, "web").tenant == "web"
    assert KeyConfig(HASH, "web", tenant="shop").tenant == "shop"
