"""`carpool keys`: making, listing and revoking API keys."""

import argparse
import hashlib
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import get_args

from carpool.cache.config import Mode
from carpool.cli.options import Commands, add_config, settings_of
from carpool.errors import StartError
from carpool.gateway.config import CacheScope, KeyConfig

_SCOPES = ("inference", "admin", "metrics")


def add_to(commands: Commands) -> None:
    """Add the command."""
    actions = commands.add_parser("keys", help="make, list and revoke API keys").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = actions.add_parser("create", help="make a key and admit it; a running server takes it at once")
    create.add_argument("--name", default="default", help="what logs and `keys list` call it")
    create.add_argument("--tenant", help="whose cache and fair share its requests use; default: the name")
    create.add_argument(
        "--scope", action="append", choices=_SCOPES, help="may be repeated; default inference"
    )
    create.add_argument(
        "--cache", choices=get_args(Mode), help="how answers to its requests are cached; default: cache.mode"
    )
    create.add_argument(
        "--cache-scope",
        choices=get_args(CacheScope),
        default="key",
        help="user: answers are shared only within one end user (the field `user`); default key",
    )
    create.add_argument(
        "--max-concurrent-requests",
        type=int,
        metavar="N",
        help="requests to models that it may have at once; beyond it 429; default: no limit of its own",
    )
    create.add_argument(
        "--requests-per-minute",
        type=int,
        metavar="N",
        help="requests to models that it may send a minute; beyond it 429; default: no limit",
    )
    create.add_argument(
        "--print", action="store_true", help="admit it nowhere: print the lines for a settings file"
    )
    create.set_defaults(run=_create)
    listing = actions.add_parser("list", help="show the keys, never their text")
    listing.set_defaults(run=_list)
    revoke = actions.add_parser("revoke", help="admit a key no more; a running server heeds it at once")
    revoke.add_argument("name", metavar="NAME")
    revoke.set_defaults(run=_revoke)
    for action in (create, listing, revoke):
        add_config(action)


def _create(arguments: argparse.Namespace) -> int:
    """Print a fresh key, the only time that its text is seen, and admit its hash. Raises `StartError`."""
    text = f"sk-carpool-{secrets.token_urlsafe(32)}"
    key = KeyConfig(
        hash=f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        name=arguments.name,
        tenant=arguments.tenant or arguments.name,
        scopes=tuple(arguments.scope or ["inference"]),
        cache=arguments.cache,
        cache_scope=arguments.cache_scope,
        created=int(time.time()),
        max_concurrent_requests=arguments.max_concurrent_requests,
        requests_per_minute=arguments.requests_per_minute,
    )
    shown = f"The key, shown once: {text}"
    if arguments.print:
        print("\n".join((shown, "", "For the settings file:", "", *_lines(key))))
        return 0
    settings = settings_of(arguments)
    if any(key.name == other.name for other in settings.keys):
        raise StartError(f"there is a key {key.name!r} in the settings file; choose another name")
    file = settings.key_file()
    file.add(key)
    print(f"{shown}\nIts hash is in {file.path}.")
    return 0


def _lines(key: KeyConfig) -> Iterator[str]:
    """A key as it stands in a settings file."""
    yield "keys:"
    yield f"  - name: {key.name}"
    yield f"    hash: {key.hash}"
    yield f"    tenant: {key.tenant}"
    yield f"    scopes: [{', '.join(key.scopes)}]"
    if key.cache is not None:
        yield f"    cache: {key.cache}"
    if key.cache_scope != "key":
        yield f"    cache_scope: {key.cache_scope}"
    if key.max_concurrent_requests is not None:
        yield f"    max_concurrent_requests: {key.max_concurrent_requests}"
    if key.requests_per_minute is not None:
        yield f"    requests_per_minute: {key.requests_per_minute}"


def _list(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    file = settings.key_file()
    for keys, origin in ((settings.keys, "settings"), (file.read(), str(file.path))):
        for key in keys:
            created = "-"
            if key.created is not None:
                created = datetime.fromtimestamp(key.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            print("\t".join((key.name, key.tenant, ",".join(key.scopes), created, origin)))
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    if any(key.name == arguments.name for key in settings.keys):
        raise StartError(f"the key {arguments.name!r} is in the settings file: remove it there and restart")
    settings.key_file().remove(arguments.name)
    print(f"{arguments.name}: revoked")
    return 0
