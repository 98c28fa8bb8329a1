"""What the cache knows of a request: digests of what must be equal, and the text that may be similar.

Digests are SHA-256 over sorted msgpack, which prefixes every value with its type and length: two requests
that differ anywhere have different encodings, wherever the boundaries between their fields lie.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict, Unpack

import msgspec

from carpool.cache.config import CacheConfig, Mode
from carpool.cache.soundness import matchable

_VERSION = 1
"""Part of every digest; raise it when the meaning of a digest changes, and no old entry is found again."""

_encoder = msgspec.msgpack.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class Query:
    """A request in the terms of the cache."""

    tenant: str
    model: str
    partition: bytes
    """32-byte digest of everything that must be equal for an answer to be shared, but for the last turn."""
    exact: bytes
    """32-byte digest of the partition and the last turn."""
    turn: str | None
    """The text to match by meaning; None where that is not sound or not allowed."""
    max_tokens: int | None
    """Not part of a digest: a complete stored answer serves every request that it fits."""
    mode: Mode
    """`on`, `exact` or `off`."""
    no_cache: bool = False
    """Do not answer from the cache."""
    no_store: bool = False
    """Do not keep the answer."""


def resolve_mode(configured: Mode, requested: Mode | None) -> Literal["on", "exact", "off"]:
    """The mode of one request: it may narrow what is configured, and under `opt-in` it must ask."""
    if configured == "off" or requested in ("off", "opt-in"):
        return "off"
    if configured == "opt-in" and requested is None:
        return "off"
    return "exact" if "exact" in (configured, requested) else "on"


def narrowest(configured: Iterable[Mode], requested: Mode | None) -> Literal["on", "exact", "off"]:
    """The mode that keeps within every one of the configured, such as a key's and a model's."""
    resolved = {resolve_mode(mode, requested) for mode in configured}
    return "off" if "off" in resolved else "exact" if "exact" in resolved else "on"


class RequestFields(TypedDict, total=False):
    """What every kind of request has, as plain JSON values."""

    tenant: Required[str]
    model: Required[str]
    revision: Required[str]
    parameters: Required[Mapping[str, Any]]
    """Every field not named here that changes the answer (top_p, stop, seed, response_format, ...); None is
    the same as absent."""
    temperature: float | None
    """None where the client set none."""
    n: int
    logprobs: bool
    max_tokens: int | None
    user: str | None
    """The end user, where answers must not be shared between the users of one key."""
    mode: Mode | None
    """What is set for this key and model, if it differs from the configured mode."""
    requested: Mode | None
    """What the request itself asks for."""
    no_cache: bool
    no_store: bool


def chat_query(
    config: CacheConfig,
    *,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    **fields: Unpack[RequestFields],
) -> Query:
    """The query of a chat completion."""
    plain = [{key: value for key, value in message.items() if value is not None} for message in messages]
    last = dict(plain[-1]) if plain else {}
    turn = _text(last.pop("content", None)) if last.get("role") == "user" else None
    if turn is None:
        return _query(config, ("chat", plain, None, tools), None, fields)
    earlier = plain[:-1]
    follow_up = any(message.get("role") not in ("system", "developer") for message in earlier)
    return _query(config, ("chat", earlier, last, tools), turn, fields, not tools, follow_up)


def completion_query(
    config: CacheConfig, *, prompt: str | Sequence[int], **fields: Unpack[RequestFields]
) -> Query:
    """The query of a completion of one prompt, a text or token ids."""
    if not isinstance(prompt, str):
        return _query(config, ("completion",), list(prompt), fields)
    return _query(config, ("completion",), prompt, fields, by_meaning=True)


def _query(
    config: CacheConfig,
    context: tuple[object, ...],
    last_turn: str | list[int] | None,
    fields: RequestFields,
    by_meaning: bool = False,
    follow_up: bool = False,
) -> Query:
    """`by_meaning`: where the last turn itself allows it; `follow_up`: whether there were turns before it."""
    tenant, model, temperature = fields["tenant"], fields["model"], fields.get("temperature")
    requested = fields.get("requested")
    mode = resolve_mode(fields.get("mode") or config.mode, requested)
    if temperature is not None and temperature > config.temperature_limit and requested is None:
        mode = "off"  # asks for variety
    if fields.get("n", 1) != 1 or fields.get("logprobs", False):
        mode = "off"  # a stored answer is one text, without logprobs
    max_tokens, wishes = (
        fields.get("max_tokens"),
        (fields.get("no_cache", False), fields.get("no_store", False)),
    )
    if mode == "off":
        return Query(tenant, model, b"", b"", None, max_tokens, mode, *wishes)
    parameters = {key: _str_keys(value) for key, value in fields["parameters"].items() if value is not None}
    try:
        partition = _digest(
            _VERSION, tenant, fields.get("user"), model, fields["revision"], temperature, parameters, context
        )
        exact = _digest(partition, last_turn)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Integers beyond 64 bits, lone surrogates, absurd nesting: the model may take them, not the cache.
        return Query(tenant, model, b"", b"", None, max_tokens, "off", *wishes)
    turn = None
    if (
        by_meaning
        and mode == "on"
        and isinstance(last_turn, str)
        and matchable(last_turn, follow_up, config.max_turn_chars)
    ):
        turn = last_turn
    return Query(tenant, model, partition, exact, turn, max_tokens, mode, *wishes)


def _text(content: object) -> str | None:
    """A user message's content as text; None where it is more than one text part, or holds no text."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
        part = content[0]
        if part.get("type") == "text" and set(part) == {"type", "text"}:
            content = part["text"]
    return content if isinstance(content, str) else None


def _str_keys(value: object) -> object:
    """Mappings such as logit_bias may come with integer keys, which the sorted encoding refuses."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else value


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(_encoder.encode(parts)).digest()
