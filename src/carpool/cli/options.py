"""Options that several commands share."""

import argparse
import os
from pathlib import Path
from typing import Any, TypeAlias

from carpool.settings import Settings, load

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives."""


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`: the YAML file."""
    parser.add_argument("--config", type=Path, help="settings file (YAML); see carpool.example.yaml")


def settings_of(arguments: argparse.Namespace, **flags: Any) -> Settings:
    """The settings with the flags that were given. Raises `StartError`."""
    given = {name: value for name, value in flags.items() if value is not None}
    return load(config=arguments.config, flags=given, environ=os.environ)
