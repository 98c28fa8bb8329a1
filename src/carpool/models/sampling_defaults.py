"""How a model wants to be sampled where the client does not say."""

from dataclasses import dataclass, fields
from typing import Any

import msgspec

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint
from carpool.models.directory import read_json_object
from carpool.models.reference import ModelReference
from carpool.models.starter import STARTER_MODELS

_FILE = "generation_config.json"


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What stands in for each sampling field that a request leaves out."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def sampling_defaults(reference: ModelReference, checkpoint: Checkpoint) -> SamplingDefaults:
    """The author's recommendation: the starter set's own, or generation_config.json where it asks to sample.

    Raises `ModelFailed` for a file that cannot be read as such.
    """
    starter = STARTER_MODELS.get(str(reference))
    if starter is not None:
        return _of(starter.sampling)
    path = checkpoint.path / _FILE
    if not checkpoint.path.is_dir() or not path.exists():
        return SamplingDefaults()
    config = read_json_object(path)
    return _of(config if config.get("do_sample") else {})


def _of(values: dict[str, Any]) -> SamplingDefaults:
    names = {field.name for field in fields(SamplingDefaults)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    try:
        return msgspec.convert(given, SamplingDefaults)
    except msgspec.ValidationError as error:
        raise ModelFailed(f"{_FILE}: {error}") from error
