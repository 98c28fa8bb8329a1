"""Settings that are not safe or make no sense stop the start."""

from typing import Any

import pytest

from carpool.errors import StartError
from carpool.gateway.config import EmbeddingsConfig, GatewayConfig, KeyConfig, RerankConfig

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
        ({"request_timeout_s": float("nan")}, "request_timeout_s"),
        ({"cors_origins": ("chat.example.org",)}, "cors_origins"),
        ({"keys": (KeyConfig(HASH, "a"), KeyConfig(HASH, "a"))}, "keys"),
    ],
)
def test_a_bad_value_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(StartError, match=named):
        GatewayConfig(**fields)


def test_a_bad_bound_of_the_encoder_routes_is_named() -> None:
    with pytest.raises(StartError, match="token_ids must be"):
        EmbeddingsConfig(token_ids="maybe")  # type: ignore[arg-type]
    with pytest.raises(StartError, match="max_inputs must be"):
        EmbeddingsConfig(max_inputs=0)
    with pytest.raises(StartError, match="max_documents must be"):
        RerankConfig(max_documents=0)


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
