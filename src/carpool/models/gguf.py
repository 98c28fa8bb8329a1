"""GGUF files presented as the Hugging Face checkpoints they were converted from."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Tensor
from carpool.models.gguf_file import GgufFile

_TOP_LEVEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GgufCheckpoint:
    """A GGUF file of the llama architecture; implements `Checkpoint`.

    `metadata` holds the file's own keys, for the tokenizer and the chat template. Raises `ModelFailed` for
    files that this class would present wrongly: other architectures, split files, scaled or partial rotary
    embeddings, experts.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        self.metadata = self._file.metadata
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise ModelFailed(
                f"{path} has the architecture {architecture!r}; supported in GGUF files is 'llama'"
            )
        self._refuse_unsupported()
        self._gguf_name = {self._hugging_face_name(name): name for name in self._file.names}
        self._config = self._read_config()

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def architecture(self) -> str:
        """Always LlamaForCausalLM."""
        return "LlamaForCausalLM"

    @property
    def config(self) -> Mapping[str, Any]:
        """The metadata under the names of config.json."""
        return self._config

    def __contains__(self, name: object) -> bool:
        return name in self._gguf_name

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name. Raises `ModelFailed` where there is none.

        The rows of query and key projections are copied, since the file has them in another order.
        """
        gguf_name = self._gguf_name.get(name)
        if gguf_name is None:
            raise ModelFailed(f"{self.path} has no tensor {name!r}")
        tensor = dataclasses.replace(self._file.tensor(gguf_name), name=name)
        if ".q_proj." in name:
            return self._restore_row_order(tensor, self._config["num_attention_heads"])
        if ".k_proj." in name:
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
            "has a mixture of experts": self.metadata.get("llama.expert_count", 0) != 0,
            "has scaled rotary embeddings": "rope_freqs.weight" in self._file.names
            or self.metadata.get("llama.rope.scaling.type", "none") != "none",
        }
        for reason, applies in reasons.items():
            if applies:
                raise ModelFailed(f"{self.path} {reason}, which is not supported in GGUF files")

    def _hugging_face_name(self, gguf_name: str) -> str:
        match gguf_name.split("."):
            case [stem, ("weight" | "bias") as kind] if stem in _TOP_LEVEL:
                return f"{_TOP_LEVEL[stem]}.{kind}"
            case ["blk", index, stem, ("weight" | "bias") as kind] if stem in _IN_BLOCK and index.isdecimal():
                return f"model.layers.{index}.{_IN_BLOCK[stem]}.{kind}"
            case _:
                raise ModelFailed(
                    f"{self.path} has the tensor {gguf_name!r}, unknown in the llama architecture"
                )

    def _read_config(self) -> dict[str, Any]:
        hidden_size = self._integer("llama.embedding_length")
        num_heads = self._integer("llama.attention.head_count")
        num_kv_heads = self._integer("llama.attention.head_count_kv", num_heads)
        head_dim = self._integer("llama.attention.key_length", hidden_size // num_heads)
        if self._integer("llama.rope.dimension_count", head_dim) != head_dim:
            raise ModelFailed(
                f"{self.path} has partial rotary embeddings, which are not supported in GGUF files"
            )
        vocab_size = self.tensor("model.embed_tokens.weight").shape[0]
        return {
            "architectures": [self.architecture],
            "model_type": "llama",
            "hidden_act": "silu",
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": self._integer("llama.feed_forward_length"),
            "num_hidden_layers": self._integer("llama.block_count"),
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_kv_heads,
            "head_dim": head_dim,
            "max_position_embeddings": self._integer("llama.context_length"),
            "rms_norm_eps": self._number("llama.attention.layer_norm_rms_epsilon"),
            "rope_theta": self._number("llama.rope.freq_base", 10_000.0),
            "tie_word_embeddings": "lm_head.weight" not in self,
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in self,
            "mlp_bias": "model.layers.0.mlp.up_proj.bias" in self,
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

    def _integer(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(key, default)
        if type(value) is not int or value < 1:
            raise ModelFailed(f"{self.path}: metadata {key} must be a positive integer, it is {value!r}")
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        value = self.metadata.get(key, default)
        if not isinstance(value, float | int) or not 0 < value < float("inf"):
            raise ModelFailed(f"{self.path}: metadata {key} must be a positive number, it is {value!r}")
        return float(value)
