"""Tiny decoders as GGUF files, as llama.cpp's convert_hf_to_gguf.py writes them."""

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.unit.runtimes.tiny_decoders import CONTEXT_LENGTH, TinyDecoder

ARCHITECTURES = {
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}


def write_gguf(
    decoder: TinyDecoder,
    path: Path,
    quantisation: gguf.GGMLQuantizationType | None = None,
    **metadata: Any,
) -> Path:
    """All tensors and what the graph needs of the metadata; matrices are quantised if asked for."""
    config, architecture = decoder.full_config, ARCHITECTURES[decoder.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    num_layers = config.get("n_layer") or config["num_hidden_layers"]
    writer.add_block_count(num_layers)
    writer.add_context_length(CONTEXT_LENGTH)
    if decoder.model_type == "gpt2":
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(config["n_inner"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_key_length(config["head_dim"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(_rotary(config).get("rope_theta") or config["rope_theta"])
        _add_rope_scaling(writer, config)
    for key, value in metadata.items():
        writer.add_string(key, value)
    names = gguf.get_tensor_name_map(architecture, num_layers)
    for name, array in decoder.weights().items():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        stored = _converted(name, array, config)
        if quantisation is not None and array.ndim == 2 and "wpe" not in name:
            writer.add_tensor(gguf_name, gguf.quants.quantize(stored, quantisation), raw_dtype=quantisation)
        else:
            writer.add_tensor(gguf_name, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _rotary(config: dict[str, Any]) -> dict[str, Any]:
    rotary: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return rotary


def _add_rope_scaling(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    rotary = _rotary(config)
    match rotary.get("rope_type"):
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rotary["factor"])
        case "llama3":
            writer.add_tensor("rope_freqs.weight", _llama3_divisors(rotary, config))


def _llama3_divisors(rotary: dict[str, Any], config: dict[str, Any]) -> NDArray[np.float32]:
    """`LlamaModel.generate_extra_tensors`."""
    low, high = rotary["low_freq_factor"], rotary["high_freq_factor"]
    context, divisors = rotary["original_max_position_embeddings"], []
    for pair in range(0, config["head_dim"], 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (pair / config["head_dim"])
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(rotary["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rotary["factor"] + smooth))
    return np.array(divisors, np.float32)


def _converted(name: str, array: NDArray[np.float32], config: dict[str, Any]) -> NDArray[np.float32]:
    if config["model_type"] == "gpt2" and array.ndim == 2 and ".h." in f".{name}":
        return np.ascontiguousarray(array.T)
    if config["model_type"] in ("llama", "mistral") and (".q_proj." in name or ".k_proj." in name):
        heads = config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"]
        halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(array.shape))
    return array
