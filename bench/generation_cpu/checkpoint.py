"""The one checkpoint all contestants use: `python -m bench.generation_cpu.checkpoint GGUF DIRECTORY`.

Makes an ordinary Hugging Face directory (safetensors in bf16, config.json, tokenizer.json, ...) from a Llama
GGUF file such as the starter model: matrices are dequantised, and the rows of the query and key projections
are in Hugging Face's order again.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from carpool.models.chat_template import read_chat_template
from carpool.models.checkpoint import Checkpoint
from carpool.models.dequantize import dequantize
from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer

_OF_LAYER = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def write_checkpoint(gguf: Path, directory: Path) -> None:
    """Make the directory from the file, unless it is complete already."""
    if (directory / "model.safetensors").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = open_checkpoint(gguf)
    tokenizer = Tokenizer.from_checkpoint(checkpoint)
    ids = {f"{name}_token_id": checkpoint.config[f"{name}_token_id"] for name in ("bos", "eos")}
    tokens = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    files: dict[str, dict[str, object]] = {
        "config.json": {**checkpoint.config, "torch_dtype": "bfloat16"},
        "generation_config.json": {"do_sample": False, "pad_token_id": ids["eos_token_id"], **ids},
        "tokenizer_config.json": {
            # Not GPT2Tokenizer, which would put its own splitting rule in the place of tokenizer.json's.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": tokenizer.eos_token,
            "model_max_length": checkpoint.config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "chat_template": read_chat_template(checkpoint),
            **tokens,
        },
        "special_tokens_map.json": {"pad_token": tokenizer.eos_token, **tokens},
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")
    (directory / "tokenizer.json").write_text(json.loads(tokenizer.to_json())["backend"])
    unfinished = directory / "model.safetensors.part"
    _write_safetensors(checkpoint, unfinished)
    unfinished.rename(directory / "model.safetensors")


def _names(checkpoint: Checkpoint) -> Iterator[str]:
    stems = ["model.embed_tokens", "model.norm", "lm_head"]
    for layer in range(checkpoint.config["num_hidden_layers"]):
        stems += [f"model.layers.{layer}.{stem}" for stem in _OF_LAYER]
    for stem in stems:
        yield from (name for kind in ("weight", "bias") if (name := f"{stem}.{kind}") in checkpoint)


def _write_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    """Eight bytes of header length, the header as JSON, the tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in _names(checkpoint):
        shape = checkpoint.tensor(name).shape
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in _names(checkpoint):
            bits = np.ascontiguousarray(dequantize(checkpoint.tensor(name))).view(np.uint32)
            # The upper halves of the float32 bit patterns, rounded to nearest, ties to even.
            file.write(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes())


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    write_checkpoint(arguments.gguf, arguments.directory)


if __name__ == "__main__":
    main()
