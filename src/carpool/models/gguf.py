"""GGUF files presented as the Hugging Face checkpoints they were converted from."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor, WeightSize
from carpool.models.gguf_architecture import ARCHITECTURES
from carpool.models.gguf_file import GgufFile
from carpool.models.hyperparameters import Hyperparameters


class GgufCheckpoint:
    """A GGUF file of one of `ARCHITECTURES`; implements `Checkpoint`.

    `metadata` holds the file's own keys, for the tokenizer and the chat template. Raises `ModelFailed` for
    files that this class would present wrongly: other architectures, split files, experts, unknown tensors.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        self.metadata = self._file.metadata
        name = self.metadata.get("general.architecture")
        known = ARCHITECTURES.get(name) if isinstance(name, str) else None
        if known is None:
            supported = ", ".join(ARCHITECTURES)
            raise ModelFailed(
                f"{path} has the architecture {name!r}; supported in GGUF files are {supported}"
            )
        self._name, self._known = str(name), known
        self._refuse_unsupported()
        self._gguf_name = {self._hugging_face_name(name): name for name in self._file.names}
        self._config = self._read_config()

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def architecture(self) -> str:
        """The class that a file of this `general.architecture` was converted from."""
        return self._known.hugging_face

    @property
    def config(self) -> Mapping[str, Any]:
        """The metadata under the names of config.json."""
        return self._config

    @property
    def size(self) -> WeightSize:
        """Of the file's tensors."""
        return self._file.size

    def __contains__(self, name: object) -> bool:
        return name in self._gguf_name

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name. Raises `ModelFailed` where there is none.

        The rows of Llama's query and key projections are copied, since the file has them in another order.
        """
        gguf_name = self._gguf_name.get(name)
        if gguf_name is None:
            raise ModelFailed(f"{self.path} has no tensor {name!r}")
        tensor = dataclasses.replace(self._file.tensor(gguf_name), name=name)
        if self._known.interleaves_rotary and ".q_proj." in name:
            return self._restore_row_order(tensor, self._config["num_attention_heads"])
        if self._known.interleaves_rotary and ".k_proj." in name:
            return self._restore_row_order(tensor, self._config["num_key_value_heads"])
        return tensor

    def _restore_row_order(self, tensor: Tensor, num_heads: int) -> Tensor:
        """Undo `LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py.

        The conversion interleaves the two halves of each head's rotary dimensions. Rows are whole quantised
        rows, so reordering the bytes is exact in every format.
        """
        head_dim = self._config["head_dim"]
        if tensor.shape[0] != num_heads * head_dim or head_dim % 2:
            raise ModelFailed(f"{self.path}: tensor {tensor.name!r} has shape {list(tensor.shape)}")
        rows = tensor.data.reshape(tensor.shape[0], -1)  # a bias has one element per row
        order = np.arange(len(rows)).reshape(num_heads, -1, 2).swapaxes(1, 2).reshape(-1)
        return dataclasses.replace(tensor, data=rows[order].reshape(tensor.data.shape))

    def _refuse_unsupported(self) -> None:
        reasons = {
            "is one part of a split file": self.metadata.get("split.count", 1) != 1,
            "has a mixture of experts": self.metadata.get(f"{self._name}.expert_count", 0) != 0,
        }
        for reason, applies in reasons.items():
            if applies:
                raise ModelFailed(f"{self.path} {reason}, which is not supported in GGUF files")

    def _hugging_face_name(self, gguf_name: str) -> str:
        known = self._known
        match gguf_name.split("."):
            case [stem, ("weight" | "bias") as kind] if stem in known.top_level:
                return f"{known.top_level[stem]}.{kind}"
            case ["blk", index, stem, ("weight" | "bias") as kind] if (
                stem in known.in_block and index.isdecimal()
            ):
                return f"{known.layers}.{index}.{known.in_block[stem]}.{kind}"
            case _:
                raise ModelFailed(
                    f"{self.path} has the tensor {gguf_name!r}, unknown in the {self._name} architecture"
                )

    def _read_config(self) -> dict[str, Any]:
        vocab_size = self.tensor(f"{self._known.top_level['token_embd']}.weight").shape[0]
        metadata = Hyperparameters(self.metadata, str(self.path))
        return {
            "architectures": [self.architecture],
            "model_type": self._name,
            "vocab_size": vocab_size,
            **self._known.read_config(self._name, metadata, self._gguf_name),
            "tie_word_embeddings": "lm_head.weight" not in self,
            "bos_token_id": self._token_id("bos", vocab_size),
            "eos_token_id": self._token_id("eos", vocab_size),
        }

    def _token_id(self, name: str, vocab_size: int) -> int | None:
        value = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if value is not None and (type(value) is not int or not 0 <= value < vocab_size):
            raise ModelFailed(
                f"{self.path} names the {name.upper()} token {value!r}, which is not in its vocabulary"
            )
        return value
