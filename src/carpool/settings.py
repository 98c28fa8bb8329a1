"""One settings model for flags, environment variables and the YAML file, in this order of precedence.

A nested setting's environment variable is `CARPOOL_` and its path joined by two underscores, such as
`CARPOOL_CACHE__THRESHOLD`; values are read as YAML, so lists and mappings can be given too. `MAX_BATCH_SIZE`,
`BATCH_WAIT_MS`, `MODEL_NAME` and `REDIS_URL` work under these plain names as well. Anything unknown or
malformed raises `StartError` with one line that names the setting and where it came from.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from carpool.cache.config import CacheConfig
from carpool.errors import StartError
from carpool.gateway.config import EmbeddingsConfig, GatewayConfig, KeyConfig, RerankConfig, check_distinct
from carpool.gateway.key_file import KeyFile
from carpool.models.source import DEFAULT_DIRECTORY
from carpool.models.starter import CHAT_MODEL, EMBEDDING_MODEL
from carpool.worker.config import ModelConfig, WorkerConfig

PREFIX = "CARPOOL_"
_ELSEWHERE: dict[tuple[str, ...], str] = {
    ("gateway", "host"): "host",
    ("gateway", "port"): "port",
    ("gateway", "keys"): "keys",
    ("gateway", "keys_file"): "keys_file",
    ("gateway", "embeddings"): "embeddings",
    ("gateway", "rerank"): "rerank",
    ("worker", "models"): "models",
    ("worker", "model_dir"): "model_dir",
    ("worker", "max_batch_size"): "max_batch_size",
    ("worker", "batch_wait_ms"): "batch_wait_ms",
}
"""Fields of the floors' configs that are set at the top: each setting has one name."""

NOT_SETTINGS = {"CARPOOL_API_KEY"}
"""What commands that ask a running server read: a key to ask with, not to admit."""

PLAIN_NAMES = {
    "MAX_BATCH_SIZE": "max_batch_size",
    "BATCH_WAIT_MS": "batch_wait_ms",
    "MODEL_NAME": "model_name",
    "REDIS_URL": "cache.url",
}


class _Loader(yaml.SafeLoader):
    """YAML as version 1.2 has it: `on` and `off` are words, integers are decimal, no name comes twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (what PyYAML reads)
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if not tag.endswith(":int") and (first in "tTfF" or not tag.endswith(":bool"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping. Raises `ConstructorError` for a name that stands there twice."""
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))


class AuthSettings(BaseModel):
    """Who may use the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    required: bool = False
    """Refuse to start without `keys`, even on a loopback address."""


class Settings(BaseModel):
    """Everything that can be set. The groups named after a floor are that floor's own config."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    host: str = "127.0.0.1"
    port: int = 8000
    model_dir: Path = DEFAULT_DIRECTORY
    """Where fetched models and the cache's file are kept."""
    models: tuple[ModelConfig, ...] | None = None
    """What to serve; None: the starter set."""
    model_name: str | None = None
    """A reference that takes the starter chat model's place."""
    max_batch_size: int | None = None
    batch_wait_ms: float | None = None
    auth: AuthSettings = AuthSettings()
    keys: tuple[KeyConfig, ...] = ()
    keys_file: Path | None = None
    """What `carpool keys` writes; None: keys.json in `model_dir`."""
    gateway: GatewayConfig = GatewayConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    rerank: RerankConfig = RerankConfig()
    cache: CacheConfig = CacheConfig()
    worker: WorkerConfig = WorkerConfig()

    def worker_config(self) -> WorkerConfig:
        """The worker's config with the models and knobs that have names of their own at the top."""
        starter = (
            ModelConfig(reference=self.model_name or CHAT_MODEL.reference),
            ModelConfig(reference=EMBEDDING_MODEL.reference),
        )
        if self.models == ():
            raise StartError("models: at least one is needed")
        return dataclasses.replace(
            self.worker,
            models=starter if self.models is None else self.models,
            model_dir=self.model_dir,
            max_batch_size=self.max_batch_size,
            batch_wait_ms=self.batch_wait_ms,
        )

    def gateway_config(self) -> GatewayConfig:
        """The gateway's config with what has a name of its own at the top."""
        key_file = self.key_file()
        from_file = key_file.read()
        check_distinct((*self.keys, *from_file))
        if self.auth.required and not self.keys and not from_file:
            raise StartError("auth.required is set, but there are no keys: `carpool keys create` makes one")
        config = dataclasses.replace(
            self.gateway,
            host=self.host,
            port=self.port,
            keys=self.keys,
            keys_file=key_file.path,
            embeddings=self.embeddings,
            rerank=self.rerank,
        )
        config.check_keys(from_file)
        return config

    def key_file(self) -> KeyFile:
        """The keys file."""
        return KeyFile(self.keys_file or self.model_dir / "keys.json")


@dataclass(frozen=True, slots=True)
class _Given:
    """A value somebody gave, and where, for error messages."""

    path: tuple[str, ...]
    value: Any
    origin: str


def load(
    *, config: Path | None = None, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str]
) -> Settings:
    """The settings from a YAML file, environment variables and flags. Raises `StartError`."""
    given = _from_file(config) if config else []
    given += _from_environment(environ)
    given += [_Given((name,), value, f"--{name.replace('_', '-')}") for name, value in (flags or {}).items()]
    merged: dict[str, Any] = {}
    for item in given:
        if (name := _ELSEWHERE.get(item.path[:2])) is not None:
            raise StartError(f"there is no setting {'.'.join(item.path)} (from {item.origin}): it is {name}")
        _put(merged, item)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise StartError(_explain(error, given)) from None


def _from_file(path: Path) -> list[_Given]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a safe loader)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if content is None or content == {}:
        return []
    if not isinstance(content, dict):
        raise StartError(f"{path} must hold settings as `name: value` lines")
    try:
        return list(_leaves((), content, str(path)))
    except RecursionError:
        raise StartError(f"{path} has an anchor that holds itself") from None


def _leaves(path: tuple[str, ...], value: Any, origin: str) -> Iterator[_Given]:
    """A nested mapping's values one by one, so that a later source can replace one and leave the rest."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves((*path, str(name)), inner, origin)
    else:
        yield _Given(path, value, origin)


def _from_environment(environ: Mapping[str, str]) -> list[_Given]:
    given = []
    for name, text in sorted(environ.items()):
        if name in PLAIN_NAMES:
            path = tuple(PLAIN_NAMES[name].split("."))
        elif name.startswith(PREFIX) and name not in NOT_SETTINGS:
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        else:
            continue
        try:
            value = yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
        except yaml.YAMLError as error:
            raise StartError(f"{name} cannot be read: {' '.join(str(error).split())}") from None
        given.append(_Given(path, value, name))
    return given


def _put(merged: dict[str, Any], item: _Given) -> None:
    *parents, last = item.path
    place = merged
    for name in parents:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise StartError(f"{name} holds settings of its own, it cannot be {inner!r} (see {item.origin})")
        place = inner
    place[last] = item.value


def _explain(error: ValidationError, given: list[_Given]) -> str:
    """The first fault in one line, under the name that whoever set it used."""
    fault = error.errors(include_url=False, include_context=False)[0]
    path = tuple(str(part) for part in fault["loc"])
    name = ".".join(path) or "settings"
    origins = [item.origin for item in given if item.path == path[: len(item.path)]]
    origin = f" (from {origins[-1]})" if origins else ""
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"there is no setting {name}{origin}"
    return f"{name}: {fault['msg'][0].lower()}{fault['msg'][1:]}, not {fault['input']!r}{origin}"
