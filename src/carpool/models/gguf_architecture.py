"""What llama.cpp's conversion makes of each architecture: other names, other keys, rows in another order.

The names are those of gguf-py's tensor_mapping.py, the keys those of its constants.py.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from carpool.models.hyperparameters import Hyperparameters

ReadConfig = Callable[[str, Hyperparameters, Container[str]], dict[str, Any]]
"""(general.architecture, metadata, the tensors' names on Hugging Face) to the content of config.json."""


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """How a file of this architecture is presented as a Hugging Face checkpoint."""

    hugging_face: str
    """The class name."""
    layers: str
    """What stands before a layer's number."""
    top_level: Mapping[str, str]
    in_block: Mapping[str, str]
    """Names without `.weight` and `.bias`, GGUF to Hugging Face."""
    read_config: ReadConfig
    interleaves_rotary: bool = False
    """Whether the rows of query and key projections are in the order of `LlamaModel.permute`."""


def _llama_config(name: str, metadata: Hyperparameters, tensors: Container[str]) -> dict[str, Any]:
    hidden_size = metadata.integer(f"{name}.embedding_length")
    num_heads = metadata.integer(f"{name}.attention.head_count")
    head_dim = metadata.integer(f"{name}.attention.key_length", hidden_size // num_heads)
    config: dict[str, Any] = {
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "intermediate_size": metadata.integer(f"{name}.feed_forward_length"),
        "num_hidden_layers": metadata.integer(f"{name}.block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.integer(f"{name}.attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.integer(f"{name}.context_length"),
        "rms_norm_eps": metadata.number(f"{name}.attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.number(f"{name}.rope.freq_base", 10_000.0),
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in tensors,
        "mlp_bias": "model.layers.0.mlp.up_proj.bias" in tensors,
    }
    if (kind := metadata.text(f"{name}.rope.scaling.type", "none")) != "none":
        factor = metadata.number(f"{name}.rope.scaling.factor", 1.0)
        config["rope_scaling"] = {"rope_type": kind, "factor": factor}
    rotary_dim = metadata.integer(f"{name}.rope.dimension_count", head_dim)
    if rotary_dim != head_dim:
        config["partial_rotary_factor"] = rotary_dim / head_dim
    return config


def _gpt2_config(name: str, metadata: Hyperparameters, tensors: Container[str]) -> dict[str, Any]:  # noqa: ARG001
    return {
        "activation_function": "gelu_new",
        "n_embd": metadata.integer(f"{name}.embedding_length"),
        "n_inner": metadata.integer(f"{name}.feed_forward_length"),
        "n_layer": metadata.integer(f"{name}.block_count"),
        "n_head": metadata.integer(f"{name}.attention.head_count"),
        "n_positions": metadata.integer(f"{name}.context_length"),
        "layer_norm_epsilon": metadata.number(f"{name}.attention.layer_norm_epsilon"),
    }


_LLAMA_TOP_LEVEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA_BLOCK = {
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
_GPT2_TOP_LEVEL = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
_GPT2_BLOCK = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}

ARCHITECTURES = {
    "gpt2": GgufArchitecture("GPT2LMHeadModel", "transformer.h", _GPT2_TOP_LEVEL, _GPT2_BLOCK, _gpt2_config),
    "llama": GgufArchitecture(
        "LlamaForCausalLM",
        "model.layers",
        # What Llama 3.1 divides its rotary frequencies by; Hugging Face computes it from config.json.
        _LLAMA_TOP_LEVEL | {"rope_freqs": "rope_freqs"},
        _LLAMA_BLOCK,
        _llama_config,
        interleaves_rotary=True,
    ),
    "qwen2": GgufArchitecture(
        "Qwen2ForCausalLM", "model.layers", _LLAMA_TOP_LEVEL, _LLAMA_BLOCK, _llama_config
    ),
    "qwen3": GgufArchitecture(
        "Qwen3ForCausalLM",
        "model.layers",
        _LLAMA_TOP_LEVEL,
        _LLAMA_BLOCK | {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
        _llama_config,
    ),
}
"""By `general.architecture`, which is `model_type` in config.json as well."""
