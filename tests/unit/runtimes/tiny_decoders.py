"""One tiny decoder of each architecture, with random weights that are the same wherever they are made.

`scripts/make_decoder_reference.py` builds them with transformers and stores what they say; tests write them
as Hugging Face directories. NumPy alone is imported here, so that both can.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ABSENT = object()
Weights = dict[str, NDArray[np.float32]]

VOCAB_SIZE = 320
CONTEXT_LENGTH = 768
NEW_TOKENS = 24
_LENGTHS = (1, 2, 7, 31, 32, 33, 90, 128, 250, 257, 280, 300, 350, 400, 470, 520, 600, 680)
_FAMILY = (100, 3)
"""Tokens that the prompts of a family share, and how many there are."""
_HIDDEN, _INNER, _LAYERS = 96, 160, 4

_TABLES = ("embed_tokens", "wte", "wpe", "lm_head")
_QUERIES_AND_KEYS = ("q_proj", "k_proj", "c_attn")
_GAIN = 2.0
_GAINS = {"gpt_neo": 1.2, "gpt2": 1.6, "llama": 1.6, "mistral": 1.6, "qwen2": 1.6, "qwen3": 1.6}
"""Of queries and keys. GPT-Neo does not scale its scores."""

_LLAMA: dict[str, Any] = {
    "hidden_size": _HIDDEN,
    "intermediate_size": _INNER,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT_LENGTH,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
_GPT2: dict[str, Any] = {
    "n_embd": _HIDDEN,
    "n_inner": _INNER,
    "n_layer": _LAYERS,
    "n_head": 3,
    "n_positions": CONTEXT_LENGTH,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
}


@dataclass(frozen=True)
class TinyDecoder:
    """A model that can be written down; `config` holds what goes into config.json beside the usual."""

    name: str
    architecture: str
    model_type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = "model."
    """Before the names of the tensors; the original GPT-2 has none."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What config.json says of the same weights instead; `ABSENT` takes a value out."""

    @property
    def full_config(self) -> dict[str, Any]:
        """All of config.json."""
        values = {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": VOCAB_SIZE,
            "bos_token_id": None,
            "eos_token_id": None,
            **self.config,
            **self.overrides,
        }
        return {name: value for name, value in values.items() if value is not ABSENT}

    def weights(self) -> Weights:
        """All tensors under the names of the checkpoint."""
        # RandomState: its numbers are the same in every version of NumPy.
        dice = np.random.RandomState(len(self.name) + sum(map(ord, self.name)))
        return {name: _draw(dice, name, shape, self.model_type) for name, shape in self._shapes().items()}

    def write(self, directory: Path, shards: int = 1) -> Path:
        """A Hugging Face directory with config.json and safetensors files, sharded if asked for."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(self.full_config))
        weights = list(self.weights().items())
        if shards == 1:
            _write_safetensors(directory / "model.safetensors", dict(weights))
            return directory
        weight_map: dict[str, str] = {}
        for number in range(shards):
            file_name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
            part = dict(weights[number::shards])
            _write_safetensors(directory / file_name, part)
            weight_map |= dict.fromkeys(part, file_name)
        index = {"metadata": {}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        match self.model_type:
            case "gpt2":
                shapes = _gpt2_shapes(self.config)
            case "gpt_neo":
                shapes = _gpt_neo_shapes(self.config)
            case _:
                shapes = _llama_shapes(self.config, self.model_type)
        named = {f"{self.prefix}{name}": shape for name, shape in shapes.items()}
        if not self.config.get("tie_word_embeddings", True):
            named["lm_head.weight"] = (VOCAB_SIZE, _HIDDEN)
        return named


def _llama_shapes(config: Mapping[str, Any], model_type: str) -> dict[str, tuple[int, ...]]:
    dim = config["head_dim"]
    queries, keys = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (VOCAB_SIZE, _HIDDEN),
        "norm.weight": (_HIDDEN,),
    }
    for layer in range(_LAYERS):
        name = f"layers.{layer}"
        shapes |= {
            f"{name}.input_layernorm.weight": (_HIDDEN,),
            f"{name}.post_attention_layernorm.weight": (_HIDDEN,),
            f"{name}.self_attn.q_proj.weight": (queries, _HIDDEN),
            f"{name}.self_attn.k_proj.weight": (keys, _HIDDEN),
            f"{name}.self_attn.v_proj.weight": (keys, _HIDDEN),
            f"{name}.self_attn.o_proj.weight": (_HIDDEN, queries),
            f"{name}.mlp.gate_proj.weight": (_INNER, _HIDDEN),
            f"{name}.mlp.up_proj.weight": (_INNER, _HIDDEN),
            f"{name}.mlp.down_proj.weight": (_HIDDEN, _INNER),
        }
        if model_type == "qwen2" or config.get("attention_bias"):
            for part, size in (("q", queries), ("k", keys), ("v", keys)):
                shapes[f"{name}.self_attn.{part}_proj.bias"] = (size,)
        if config.get("attention_bias"):
            shapes[f"{name}.self_attn.o_proj.bias"] = (_HIDDEN,)
        if model_type == "qwen3":
            shapes |= {f"{name}.self_attn.{part}_norm.weight": (dim,) for part in ("q", "k")}
    return shapes


def _gpt_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (VOCAB_SIZE, _HIDDEN),
        "wpe.weight": (CONTEXT_LENGTH, _HIDDEN),
        "ln_f.weight": (_HIDDEN,),
        "ln_f.bias": (_HIDDEN,),
    }
    for layer in range(_LAYERS):
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"h.{layer}.{norm}.{kind}": (_HIDDEN,) for kind in ("weight", "bias")}
    return shapes


def _gpt2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Matrices are [in_features, out_features]."""
    shapes = _gpt_shapes()
    for layer in range(_LAYERS):
        for name, rows, columns in (
            ("attn.c_attn", _HIDDEN, 3 * _HIDDEN),
            ("attn.c_proj", _HIDDEN, _HIDDEN),
            ("mlp.c_fc", _HIDDEN, config["n_inner"]),
            ("mlp.c_proj", config["n_inner"], _HIDDEN),
        ):
            shapes |= {f"h.{layer}.{name}.weight": (rows, columns), f"h.{layer}.{name}.bias": (columns,)}
    return shapes


def _gpt_neo_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes, inner = _gpt_shapes(), config["intermediate_size"]
    for layer in range(_LAYERS):
        attention = f"h.{layer}.attn.attention"
        shapes |= {f"{attention}.{part}_proj.weight": (_HIDDEN, _HIDDEN) for part in ("q", "k", "v", "out")}
        shapes |= {
            f"{attention}.out_proj.bias": (_HIDDEN,),
            f"h.{layer}.mlp.c_fc.weight": (inner, _HIDDEN),
            f"h.{layer}.mlp.c_fc.bias": (inner,),
            f"h.{layer}.mlp.c_proj.weight": (_HIDDEN, inner),
            f"h.{layer}.mlp.c_proj.bias": (_HIDDEN,),
        }
    return shapes


def _draw(
    dice: np.random.RandomState, name: str, shape: tuple[int, ...], model_type: str
) -> NDArray[np.float32]:
    """Numbers that make every part of the model matter for what comes next.

    Attention picks few tokens but not always one, and what the layers add outweighs the token's own
    embedding, which a tied head would repeat.
    """
    kind = name.split(".")[-2]
    if len(shape) == 1:
        is_norm = name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
        values = dice.uniform(0.5, 1.5, shape) if is_norm else dice.normal(0, 0.1, shape)
    elif kind in _TABLES:
        values = dice.normal(0, 0.4, shape)
    else:
        inputs = 0 if model_type == "gpt2" else 1
        gain = _GAINS[model_type] if kind in _QUERIES_AND_KEYS else _GAIN
        values = dice.normal(0, gain / math.sqrt(shape[inputs]), shape)
        # GELU's mean is not 0: without this, the same direction would be added for every token.
        values -= values.mean(axis=inputs, keepdims=True)
    return values.astype(np.float32)


def _write_safetensors(path: Path, tensors: Weights) -> None:
    header, data = {}, b""
    for name, tensor in tensors.items():
        begin, data = len(data), data + tensor.tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def prompts() -> list[list[int]]:
    """Token ids, the same for every model: all lengths, and a family with a common beginning."""
    dice = np.random.RandomState(0)

    def draw(length: int) -> list[int]:
        return [int(id_) for id_ in dice.randint(0, VOCAB_SIZE, length)]

    shared, members = draw(_FAMILY[0]), _FAMILY[1]
    return [
        *(draw(length) for length in _LENGTHS),
        *([*shared, *draw(4 + 9 * each)] for each in range(members)),
    ]


DECODERS = {
    decoder.name: decoder
    for decoder in (
        TinyDecoder("gpt2", "GPT2LMHeadModel", "gpt2", _GPT2, prefix=""),
        TinyDecoder(
            "gpt2-scaled",
            "GPT2LMHeadModel",
            "gpt2",
            _GPT2 | {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"},
            prefix="transformer.",
        ),
        TinyDecoder(
            "gpt-neo",
            "GPTNeoForCausalLM",
            "gpt_neo",
            {
                "hidden_size": _HIDDEN,
                "intermediate_size": _INNER,
                "num_layers": _LAYERS,
                "num_heads": 3,
                "max_position_embeddings": CONTEXT_LENGTH,
                "attention_types": [[["global", "local"], 2]],
                "window_size": 256,
                "activation_function": "gelu_new",
            },
            prefix="transformer.",
        ),
        TinyDecoder(
            "llama",
            "LlamaForCausalLM",
            "llama",
            _LLAMA
            | {
                "rope_theta": 5000.0,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 4.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 192,
                },
            },
        ),
        TinyDecoder(
            "llama-linear",
            "LlamaForCausalLM",
            "llama",
            _LLAMA
            | {
                "attention_bias": True,
                "tie_word_embeddings": True,
                "rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0},
            },
        ),
        TinyDecoder("mistral", "MistralForCausalLM", "mistral", _LLAMA | {"sliding_window": 75}),
        TinyDecoder(
            "qwen2",
            "Qwen2ForCausalLM",
            "qwen2",
            _LLAMA
            | {
                "tie_word_embeddings": True,
                "rope_theta": 1_000_000.0,
                "use_sliding_window": True,
                "sliding_window": 40,
                "max_window_layers": 2,
            },
        ),
        TinyDecoder(
            "qwen3", "Qwen3ForCausalLM", "qwen3", _LLAMA | {"rope_theta": 1_000_000.0, "head_dim": 64}
        ),
    )
}


def digest(weights: Weights) -> str:
    """What tells two sets of weights apart."""
    found = hashlib.sha256()
    for name, array in sorted(weights.items()):
        found.update(name.encode() + array.tobytes())
    return found.hexdigest()
