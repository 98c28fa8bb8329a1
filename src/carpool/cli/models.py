"""`carpool models`: what is configured, and fetching it ahead of time."""

import argparse
import sys

from carpool.cli.options import Commands, add_config, settings_of
from carpool.errors import ModelFailed, StartError
from carpool.models.reference import ModelReference
from carpool.models.source import Progress, fetch


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("models", help="list the configured models; `models fetch` downloads them")
    add_config(parser)
    parser.add_argument("action", nargs="?", choices=("list", "fetch"), default="list")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List or fetch the configured models. Raises `StartError`."""
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
