"""The smallest Llama that is still one, written as a GGUF file."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE = 64, 4, 2, 16, 96

Arrays = dict[str, NDArray[Any]]


def byte_level_alphabet() -> list[str]:
    """The 256 characters of byte-level BPE, by byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    extra = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(extra)) for byte in range(256)]


def _permute(array: NDArray[Any], heads: int) -> NDArray[Any]:
    """What llama.cpp's convert_hf_to_gguf.py does to query and key projections."""
    return (
        array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        .swapaxes(1, 2)
        .reshape(array.shape)
    )


class TinyLlama:
    """A one-layer Llama as a GGUF file; every part can be changed before `write`."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)

        def weight(rows: int, columns: int) -> NDArray[np.float32]:
            return generator.standard_normal((rows, columns)).astype(np.float32)

        self.tokens = [*byte_level_alphabet(), "\u0120a", "<|im_start|>", "<|im_end|>", "<think>"]
        self.weights: Arrays = {
            "model.embed_tokens.weight": weight(len(self.tokens), HIDDEN),
            "model.norm.weight": weight(1, HIDDEN)[0],
            "model.layers.0.input_layernorm.weight": weight(1, HIDDEN)[0],
            "model.layers.0.post_attention_layernorm.weight": weight(1, HIDDEN)[0],
            "model.layers.0.self_attn.q_proj.weight": weight(HEADS * HEAD_DIM, HIDDEN),
            "model.layers.0.self_attn.q_proj.bias": weight(1, HEADS * HEAD_DIM)[0],
            "model.layers.0.self_attn.k_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            "model.layers.0.self_attn.v_proj.weight": weight(KV_HEADS * HEAD_DIM, HIDDEN),
            "model.layers.0.self_attn.o_proj.weight": weight(HIDDEN, HEADS * HEAD_DIM),
            "model.layers.0.mlp.gate_proj.weight": weight(INTERMEDIATE, HIDDEN),
            "model.layers.0.mlp.up_proj.weight": weight(INTERMEDIATE, HIDDEN),
            "model.layers.0.mlp.down_proj.weight": weight(HIDDEN, INTERMEDIATE),
        }
        self.quantisation: gguf.GGMLQuantizationType | None = None
        self.architecture = "llama"
        self.metadata: dict[str, Any] = {
            "llama.block_count": 1,
            "llama.context_length": 128,
            "llama.embedding_length": HIDDEN,
            "llama.feed_forward_length": INTERMEDIATE,
            "llama.attention.head_count": HEADS,
            "llama.attention.head_count_kv": KV_HEADS,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.rope.freq_base": 10000.0,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": [1] * (len(self.tokens) - 3) + [3, 3, 4],
            "tokenizer.ggml.merges": ["\u0120 a"],
            "tokenizer.ggml.bos_token_id": len(self.tokens) - 3,
            "tokenizer.ggml.eos_token_id": len(self.tokens) - 2,
        }
        self.extra_tensors: Arrays = {}

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.metadata.items():
            match value:
                case bool():
                    writer.add_bool(key, value)
                case int():
                    writer.add_uint32(key, value)
                case float():
                    writer.add_float32(key, value)
                case str():
                    writer.add_string(key, value)
                case list():
                    writer.add_array(key, value)
        names = gguf.TensorNameMap(gguf.MODEL_ARCH.LLAMA, 1)
        for name, array in self.weights.items():
            heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else 0
            stored = _permute(array, heads) if heads else array
            gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if self.quantisation is not None and array.ndim == 2:
                quantised = gguf.quants.quantize(stored, self.quantisation)
                writer.add_tensor(gguf_name, quantised, raw_dtype=self.quantisation)
            else:
                writer.add_tensor(gguf_name, stored)
        for name, array in self.extra_tensors.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path
