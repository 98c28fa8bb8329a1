"""Directories with a config.json, as Hugging Face lays them out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carpool.errors import ModelFailed


class ModelDirectory:
    """What config.json says of a directory, whatever holds its weights; a part of `Checkpoint`.

    Raises `ModelFailed` for one without config.json or without an architecture in it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory
        self._config = read_json_object(directory / "config.json")
        match self._config.get("architectures"):
            case [str(architecture), *_]:
                self._architecture = architecture
            case _:
                raise ModelFailed(f"{directory / 'config.json'} names no architecture")

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    @property
    def architecture(self) -> str:
        """The first of config.json's `architectures`."""
        return self._architecture

    @property
    def config(self) -> Mapping[str, Any]:
        """The content of config.json."""
        return self._config


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `ModelFailed` where the file cannot be read or holds another."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFailed(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelFailed(f"{path} is not a JSON object")
    return value
