"""What a sentence-transformers directory says beside its checkpoint: pooling, window and prompts.

The layout is documented at https://sbert.net/docs/sentence_transformer/usage/custom_models.html.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carpool.errors import ModelFailed
from carpool.models.directory import read_json_object
from carpool.runtimes.pooling import Pooling, PoolingMode

from .similarity import Similarity

_MODE_OF_FLAG = {
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_max_tokens": PoolingMode.MAX,
}
"""As versions before 6 of the library wrote it."""
_UNLIMITED = 1_000_000_000
"""What Hugging Face's tokenizers say of a window that is not known is above this."""


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
    similarity: Similarity = Similarity.COSINE

    @property
    def query_prompt(self) -> str:
        """What is put before a query that documents are compared with."""
        return self.prompts.get("query", "")

    @property
    def document_prompt(self) -> str:
        """What is put before a document."""
        named = (self.prompts.get(name) for name in ("document", "passage", "corpus"))
        return next(filter(None, named), "")

    @classmethod
    def read(cls, directory: Path) -> "SentenceTransformersConfig":
        """Read a model directory; the files are all optional.

        Raises `ModelFailed` for a module or a pooling that cannot be reproduced, as the vectors would be
        wrong without a sign of it.
        """
        modules = directory / "modules.json"
        path = directory / "config_sentence_transformers.json"
        config = read_optional(path)
        prompts, default_prompt = _read_prompts(path, config)
        similarity = config.get("similarity_fn_name") or Similarity.COSINE
        if similarity not in list(Similarity):
            raise ModelFailed(f"{path} has the similarity {similarity!r}, which is not supported")
        return cls(
            pooling=_read_pooling(directory, modules) if modules.exists() else Pooling(),
            max_tokens=read_max_tokens(directory),
            lower_case=bool(_read_transformer(directory).get("do_lower_case")),
            prompts=prompts,
            default_prompt=default_prompt,
            similarity=Similarity(similarity),
        )


def read_max_tokens(directory: Path) -> int | None:
    """The longest input that the model's authors mean, special tokens included; None where nothing says so.

    Raises `ModelFailed` for what is no length.
    """
    asked = _read_transformer(directory).get("max_seq_length")
    if asked is None:
        asked = read_optional(directory / "tokenizer_config.json").get("model_max_length")
        if asked is None or (isinstance(asked, int | float) and asked > _UNLIMITED):
            return None
    if type(asked) is not int or asked < 1:
        raise ModelFailed(f"{directory}: the longest input is {asked!r} tokens, which is no length")
    return asked


def read_optional(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is no file. Raises `ModelFailed` for another content."""
    return read_json_object(path) if path.exists() else {}


def _read_transformer(directory: Path) -> dict[str, Any]:
    """The module's own file; older ones have the model's type in their name instead of `bert`."""
    paths = sorted(directory.glob("sentence_*_config.json"))
    return read_json_object(paths[0]) if paths else {}


def _read_prompts(path: Path, config: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """The prompts by their names, and the text of the default one."""
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
    if not config.get("include_prompt", True):
        raise ModelFailed(f"{path}: pooling without the prompt is not supported")
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
    else:
        flags = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
        mode = _MODE_OF_FLAG.get(flags[0]) if len(flags) == 1 else " + ".join(flags)
    if mode not in list(PoolingMode):
        raise ModelFailed(f"{path}: the pooling {mode or 'none'} is not supported")
    return PoolingMode(mode)
