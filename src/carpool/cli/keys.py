"""`carpool keys create`: a key to give away, and its hash for the settings."""

import argparse
import hashlib
import secrets
from typing import get_args

from carpool.cache.config import Mode
from carpool.cli.options import Commands
from carpool.gateway.config import CacheScope

_SCOPES = ("inference", "admin", "metrics")


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("keys", help="make an API key")
    parser.add_argument("action", choices=("create",))
    parser.add_argument("--name", default="default", help="what the key is called in the settings")
    parser.add_argument("--tenant", help="whose cache and fair share its requests use; default: the name")
    parser.add_argument(
        "--scope", action="append", choices=_SCOPES, help="may be repeated; default inference"
    )
    parser.add_argument(
        "--cache", choices=get_args(Mode), help="how answers to its requests are cached; default: cache.mode"
    )
    parser.add_argument(
        "--cache-scope",
        choices=get_args(CacheScope),
        default="key",
        help="user: answers are shared only within one end user (the field `user`); default key",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a fresh key and the lines that admit it. The key itself is stored nowhere."""
    key = f"sk-carpool-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    scopes = ", ".join(arguments.scope or ["inference"])
    cache = f"\n    cache: {arguments.cache}" if arguments.cache else ""
    if arguments.cache_scope != "key":
        cache += f"\n    cache_scope: {arguments.cache_scope}"
    print(
        f"The key, shown once: {key}\n\nFor the settings file:\n\nkeys:\n"
        f"  - name: {arguments.name}\n    hash: sha256:{digest}\n"
        f"    tenant: {arguments.tenant or arguments.name}\n    scopes: [{scopes}]{cache}"
    )
    return 0
