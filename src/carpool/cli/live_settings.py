"""`carpool settings`: what can be changed of a running server, and of one of its models."""

import argparse
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from carpool.cli.admin_client import AdminClient, add_server
from carpool.cli.options import Commands
from carpool.errors import StartError

_MODEL_KNOBS = ("max_batch_size", "batch_wait_ms", "weight", "max_concurrent_requests")


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "settings",
        help="show or change settings of a running server",
        description="show (the default) or set NAME=VALUE ... of a running server, or with --model of one of "
        "its models. What is set lasts until the server stops.",
        allow_abbrev=False,  # --key sk-... would be taken for --key-file
    )
    add_server(parser)
    parser.add_argument("--model", metavar="NAME", help="the settings of this model")
    parser.add_argument("action", nargs="?", choices=("show", "set"), default="show")
    parser.add_argument(
        "assignments", nargs="*", metavar="NAME=VALUE", help="such as gate_policy=wfq or max_batch_size=16"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show or set, and show what is in force. Raises `StartError`."""
    path = "/admin/settings" if arguments.model is None else f"/admin/models/{quote(arguments.model)}"
    if arguments.action == "set":
        changes = _changes(arguments.assignments)
        with AdminClient.of(arguments) as server:
            settings = server.patch(path, changes)
    elif arguments.assignments:
        raise StartError(f"settings show takes no {arguments.assignments[0]!r}; set does")
    else:
        with AdminClient.of(arguments) as server:
            settings = server.get(path)
    shown = settings if arguments.model is None else {name: settings[name] for name in _MODEL_KNOBS}
    for name, value in shown.items():
        print(f"{name}\t{value if isinstance(value, str) else json.dumps(value)}")
    return 0


def _changes(assignments: Sequence[str]) -> dict[str, Any]:
    """The fields by name; a value that is no JSON is a word. What is allowed is the server's to say."""
    if not assignments:
        raise StartError("settings set needs NAME=VALUE")
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not (name and separator):
            raise StartError(f"settings set takes NAME=VALUE, not {assignment!r}")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    return changes
