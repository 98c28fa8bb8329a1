"""The `carpool` command: the composition root, where settings become a running server."""

import argparse
import sys
from collections.abc import Sequence

from carpool import __version__
from carpool.errors import StartError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 and one line where it cannot start as asked."""
    try:
        return _main(argv)
    except StartError as error:
        print(f"carpool: {error.message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _main(argv: Sequence[str] | None) -> int:
    # Imported here: a Ctrl-C during the second that it takes ends like any other.
    from carpool.cli import bench, cache, doctor, keys, live_settings, models, serve

    parser = argparse.ArgumentParser(prog="carpool", description="A self-hosted inference server.")
    parser.add_argument("--version", action="version", version=f"carpool {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (serve, models, live_settings, cache, keys, doctor, bench):
        command.add_to(commands)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status
