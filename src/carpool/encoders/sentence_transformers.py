"""What a sentence-transformers directory says beside its checkpoint: pooling, window and prompts.

The layout is documented at https://sbert.net/docs/sentence_transformer/usage/custom_models.html.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carpool.errors import ModelFailed
from carpool.models.safetensors import read_json_object
from carpool.runtimes.pooling import Pooling, PoolingMode

_MODE_OF_FLAG = {
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_max_tokens": PoolingMode.MAX,
}


@dataclass(frozen=True, slots=True)
class SentenceTransformersConfig:
    """The parts that an embedding needs. The defaults are those of a directory without these files."""

    pooling: Pooling = field(default_factory=Pooling)
    max_tokens: int | None = None
    """Longest input, special tokens included; None: as many as the model has positions for."""
    lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer sees them."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What is put before a text, by the kind of text, such as `query`."""
    default_prompt: str = ""
    """What is put before every text."""

    @classmethod
    def read(cls, directory: Path) -> "SentenceTransformersConfig":
        """Read a model directory; the files are all optional.

        Raises `ModelFailed` for a module or a pooling that cannot be reproduced, as the vectors would be
        wrong without a sign of it.
        """
        modules = directory / "modules.json"
        transformer = _optional(directory / "sentence_bert_config.json")
        max_tokens = transformer.get("max_seq_length")
        if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
            raise ModelFailed(f"{directory / 'sentence_bert_config.json'}: max_seq_length is {max_tokens!r}")
        prompts, default_prompt = _read_prompts(directory / "config_sentence_transformers.json")
        return cls(
            pooling=_read_pooling(directory, modules) if modules.exists() else Pooling(),
            max_tokens=max_tokens,
            lower_case=bool(transformer.get("do_lower_case")),
            prompts=prompts,
            default_prompt=default_prompt,
        )


def _read_prompts(path: Path) -> tuple[dict[str, str], str]:
    """The prompts by their names, and the text of the default one."""
    config = _optional(path)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelFailed(f"{path}: prompts are not texts by their names")
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelFailed(f"{path} has no prompt of the name {default!r}, its default")
    return prompts, "" if default is None else prompts[default]


def _read_pooling(directory: Path, modules: Path) -> Pooling:
    mode, normalize = PoolingMode.MEAN, False
    for module in _read_modules(modules):
        match str(module.get("type")).rpartition(".")[2]:
            case "Transformer":
                pass
            case "Pooling":
                mode = _read_mode(directory / str(module.get("path")) / "config.json")
            case "Normalize":
                normalize = True
            case other:
                raise ModelFailed(f"{modules} has the module {other}, which is not supported")
    return Pooling(mode, normalize)


def _read_modules(path: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFailed(f"{path} cannot be read: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelFailed(f"{path} is not a list of modules")
    return modules


def _read_mode(path: Path) -> PoolingMode:
    config = read_json_object(path)
    flags = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    if len(flags) != 1 or flags[0] not in _MODE_OF_FLAG:
        raise ModelFailed(f"{path}: the pooling {' + '.join(flags) or 'none'} is not supported")
    if not config.get("include_prompt", True):
        raise ModelFailed(f"{path}: pooling without the prompt is not supported")
    return _MODE_OF_FLAG[flags[0]]


def _optional(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.exists() else {}
