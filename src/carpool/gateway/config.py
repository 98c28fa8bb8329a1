"""The settings of the gateway."""

import ipaddress
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from carpool.cache.config import Mode
from carpool.errors import StartError

Scope = Literal["inference", "metrics", "admin"]
"""What a key may do: ask the models, read metrics and the dashboard, change the server."""

CacheScope = Literal["key", "user"]
"""Who shares cached answers: all who use the keys of a tenant, or each end user with himself."""

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """An API key, of which only the hash is known here."""

    hash: str
    """`sha256:` and the 64 hexadecimal digits of the key's SHA-256."""
    name: str
    """What logs call it."""
    scopes: tuple[Scope, ...] = ("inference",)
    tenant: str = ""
    """Whose data it sees; keys of one tenant share cached answers. Empty: its own, by its name."""
    cache: Mode | None = None
    """How answers to its requests are cached; None: as `cache.mode` says."""
    cache_scope: CacheScope = "key"
    """`user`: answers are shared only between requests that name the same end user in the field `user`, and
    those that name none bypass the cache. For front ends that serve many people with one key."""
    created: int | None = None
    """When it was made, in Unix seconds; None where nobody noted it."""
    max_concurrent_requests: int | None = None
    """Requests to models that it may have at once; None: as many as the server takes."""
    requests_per_minute: int | None = None
    """Requests to models, the minute's all at once if it was quiet; None: no limit."""

    def __post_init__(self) -> None:
        if not self.tenant:
            object.__setattr__(self, "tenant", self.name)
        for attribute in ("name", "tenant"):
            if not _NAME.fullmatch(getattr(self, attribute)):
                value = getattr(self, attribute)
                raise StartError(
                    f"keys: the {attribute} {value!r} must be letters, digits and . _ - only, at most 64"
                )
        if not _HASH.fullmatch(self.hash):
            raise StartError(f"keys: the hash of {self.name} must be sha256: and 64 hexadecimal digits")
        for scope in self.scopes:
            if scope not in get_args(Scope):
                allowed = ", ".join(get_args(Scope))
                raise StartError(f"keys: a scope of {self.name} must be one of {allowed}, not {scope!r}")
        if self.cache not in (None, *get_args(Mode)):
            allowed = ", ".join(get_args(Mode))
            raise StartError(f"keys: cache of {self.name} must be one of {allowed}, not {self.cache!r}")
        for attribute in ("max_concurrent_requests", "requests_per_minute"):
            limit = getattr(self, attribute)
            if limit is not None and limit < 1:
                raise StartError(f"keys: {attribute} of {self.name} must be at least 1, not {limit}")
        if self.cache_scope not in get_args(CacheScope):
            raise StartError(
                f"keys: cache_scope of {self.name} must be key or user, not {self.cache_scope!r}"
            )


def check_distinct(keys: Collection[KeyConfig]) -> None:
    """Raise `StartError` if keys share a name or a hash."""
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise StartError(f"keys: every key needs a name of its own, {name} is there twice")
    if len({key.hash for key in keys}) < len(keys):
        raise StartError("keys: two of them have the same hash")


@dataclass(frozen=True, slots=True)
class EmbeddingsConfig:
    """The bounds of an embeddings call, and what its token ids mean."""

    token_ids: Literal["refuse", "own", "cl100k"] = "refuse"  # noqa: S105
    """Inputs given as token ids: refused, taken as ids of the model's own tokenizer, or as OpenAI's
    cl100k_base, whose text is then embedded."""
    max_inputs: int = 4096
    """Inputs of one call."""

    def __post_init__(self) -> None:
        if self.token_ids not in ("refuse", "own", "cl100k"):
            raise StartError(f"embeddings.token_ids must be refuse, own or cl100k, not {self.token_ids!r}")
        if self.max_inputs < 1:
            raise StartError(f"embeddings.max_inputs must be at least 1, not {self.max_inputs}")


@dataclass(frozen=True, slots=True)
class RerankConfig:
    """The bounds of a rerank call."""

    max_documents: int = 4096
    """Documents of one call."""

    def __post_init__(self) -> None:
        if self.max_documents < 1:
            raise StartError(f"rerank.max_documents must be at least 1, not {self.max_documents}")


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where the server listens, who may use it, and the bounds of a request."""

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[KeyConfig, ...] = ()
    """Those of the settings file."""
    keys_file: Path | None = None
    """Further ones, see `key_file`. Without any, everybody on this machine is the tenant `local`."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names a keyless server answers to; without keys a foreign name may be DNS rebinding."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may call the API, such as `https://chat.example.org`; `*` for all."""
    max_body_bytes: int = 16 * 2**20
    max_concurrent_requests: int = 1024
    """Requests that may be inside at once, those waiting for a model included."""
    request_timeout_s: float = 600.0
    """Longest life of a request, in seconds."""
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    rerank: RerankConfig = RerankConfig()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise StartError(f"port must be between 0 and 65535, not {self.port}")
        if not self.keys and self.keys_file is None:
            self.check_keys(())
        check_distinct(self.keys)
        for origin in self.cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise StartError(
                    f"gateway.cors_origins: {origin!r} must be a scheme and a host, or * for all origins"
                )
        for attribute in ("max_body_bytes", "max_concurrent_requests"):
            if getattr(self, attribute) < 1:
                raise StartError(f"gateway.{attribute} must be at least 1, not {getattr(self, attribute)}")
        if not 0 < self.request_timeout_s < math.inf:
            raise StartError(f"gateway.request_timeout_s must be above 0, not {self.request_timeout_s}")

    def check_keys(self, from_file: Collection[KeyConfig]) -> None:
        """Raise `StartError` if there is no key and other machines can reach the server."""
        if not self.keys and not from_file and not self.is_loopback:
            raise StartError(
                f"host {self.host} is open to other machines, so at least one of `keys` must be set "
                "(carpool keys create makes one); 127.0.0.1 needs none"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
