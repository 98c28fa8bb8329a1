"""`carpool models`: what is configured, fetching it ahead of time, and the models of a running server."""

import argparse
import sys
import time
from typing import Any
from urllib.parse import quote

from carpool.cli.admin_client import AdminClient, add_server
from carpool.cli.options import Commands, add_config, settings_of
from carpool.errors import ModelFailed, StartError
from carpool.models.reference import ModelReference
from carpool.models.source import Progress, fetch

_POLL_S = 0.25


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "models",
        help="list or fetch the configured models; status, load and unload those of a running server",
        description="list (the default) and fetch work on the settings: what is configured, and downloading "
        "it ahead of time. status, load NAME and unload NAME speak to a running server.",
        allow_abbrev=False,  # --key sk-... would be taken for --key-file
    )
    add_config(parser)
    add_server(parser)
    parser.add_argument(
        "action", nargs="?", choices=("list", "fetch", "status", "load", "unload"), default="list"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the model to load or unload")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do one of the actions. Raises `StartError`."""
    changes = arguments.action in ("load", "unload")
    if changes and arguments.name is None:
        raise StartError(f"models {arguments.action} needs the name of a model")
    if not changes and arguments.name is not None:
        raise StartError(f"models {arguments.action} takes no name, not {arguments.name!r}")
    if changes:
        with AdminClient.of(arguments) as server:
            return _change(server, arguments.action, arguments.name)
    if arguments.action == "status":
        with AdminClient.of(arguments) as server:
            return _status(server)
    return _configured(arguments)


def _status(server: AdminClient) -> int:
    for model in server.get("/admin/models")["data"]:
        memory = model["memory_bytes"]
        columns = [model["id"], model["phase"], f"{memory / 2**20:.0f} MiB" if memory else "-"]
        columns.append(f"{model['open_requests']} requests")
        print("\t".join(columns + ([model["error"]] if model["error"] else [])))
    return 0


def _change(server: AdminClient, action: str, name: str) -> int:
    """Load or unload a model, and wait until it is."""
    path = f"/admin/models/{quote(name)}"
    model: dict[str, Any] = server.post(f"{path}/{action}", {})
    shown = ""
    while model["phase"] not in ("ready", "failed", "unloaded"):
        if shown != model["phase"]:
            shown = model["phase"]
            print(f"{model['id']}: {shown}", file=sys.stderr, flush=True)
        time.sleep(_POLL_S)
        model = server.get(path)
    if model["phase"] != {"load": "ready", "unload": "unloaded"}[action]:
        raise StartError(f"{model['id']} is {model['phase']}: {model['error']}")
    print(f"{model['id']}: {model['phase']}")
    return 0


def _configured(arguments: argparse.Namespace) -> int:
    """List or fetch the configured models."""
    worker = settings_of(arguments).worker_config()
    for model in worker.models:
        if arguments.action == "fetch":
            try:
                path = fetch(ModelReference.parse(model.reference), worker.model_dir, _show)
            except ModelFailed as error:
                raise StartError(error.message) from None
            print(f"{model.name}\t{path}")
        else:
            print("\t".join((model.name, model.reference, *model.aliases)))
    return 0


def _show(progress: Progress) -> None:
    if sys.stderr.isatty():
        total = f" of {progress.total_bytes / 1e6:.0f}" if progress.total_bytes else ""
        end = "\n" if progress.received_bytes == progress.total_bytes else ""
        print(
            f"\r{progress.model_id}: {progress.received_bytes / 1e6:.0f}{total} MB",
            end=end,
            file=sys.stderr,
            flush=True,
        )
