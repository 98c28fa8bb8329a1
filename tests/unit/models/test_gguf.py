import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint, TensorFormat
from carpool.models.dequantize import dequantize
from carpool.models.gguf import GgufCheckpoint
from carpool.models.gguf_file import GgufFile
from tests.unit.models.tiny_llama import TinyLlama


def test_presents_hugging_face_names_and_config(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    checkpoint: Checkpoint = GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))
    assert checkpoint.path == tmp_path / "m.gguf"
    assert checkpoint.architecture == "LlamaForCausalLM"
    assert dict(checkpoint.config) == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": 260,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "rms_norm_eps": pytest.approx(1e-5),
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": False,
        "bos_token_id": 257,
        "eos_token_id": 258,
    }
    assert "lm_head.weight" not in checkpoint
    for name, array in tiny_llama.weights.items():
        tensor = checkpoint.tensor(name)
        assert tensor.name == name
        assert tensor.shape == array.shape
        np.testing.assert_array_equal(dequantize(tensor), array)
    with pytest.raises(ModelFailed, match="no tensor 'x'"):
        checkpoint.tensor("x")


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_row_order_is_restored_in_quantised_bytes(tmp_path: Path, tiny_llama: TinyLlama, name: str) -> None:
    quantisation = tiny_llama.quantisation = gguf.GGMLQuantizationType[name]
    checkpoint = GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))
    for tensor_name, array in tiny_llama.weights.items():
        if array.ndim == 2:
            tensor = checkpoint.tensor(tensor_name)
            assert tensor.format is TensorFormat[name]
            expected = gguf.quants.quantize(array, quantisation).view(np.uint8)
            np.testing.assert_array_equal(tensor.data, expected)
            np.testing.assert_array_equal(
                dequantize(tensor), gguf.quants.dequantize(expected, quantisation).reshape(array.shape)
            )


def test_untied_head(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    tiny_llama.weights["lm_head.weight"] = tiny_llama.weights["model.embed_tokens.weight"] * 2
    checkpoint = GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))
    assert checkpoint.config["tie_word_embeddings"] is False
    assert "lm_head.weight" in checkpoint


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("split.count", 2, "one part of a split file"),
        ("llama.expert_count", 8, "mixture of experts"),
        ("llama.block_count", "x", "block_count must be a positive integer"),
        ("llama.embedding_length", 0, "embedding_length must be a positive integer"),
        ("tokenizer.ggml.eos_token_id", 260, "EOS token 260"),
        ("tokenizer.ggml.bos_token_id", "x", "BOS token 'x'"),
        ("llama.rope.freq_base", 0.0, "freq_base must be a positive number"),
        ("llama.rope.freq_base", float("nan"), "freq_base must be a positive number"),
    ],
)
def test_refuses_what_it_would_present_wrongly(
    tmp_path: Path, tiny_llama: TinyLlama, key: str, value: Any, words: str
) -> None:
    tiny_llama.metadata[key] = value
    with pytest.raises(ModelFailed, match=words):
        GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))


def test_refuses_other_architectures_by_name(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    tiny_llama.architecture = "mamba"
    with pytest.raises(
        ModelFailed, match="architecture 'mamba'; supported in GGUF files are gpt2, llama, qwen2"
    ):
        GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("name", ["rope_factors.weight", "blk.0.ffn_gate_inp.weight", "blk.x.attn_q.weight"])
def test_refuses_unknown_tensors(tmp_path: Path, tiny_llama: TinyLlama, name: str) -> None:
    tiny_llama.extra_tensors[name] = np.ones(8, np.float32)
    with pytest.raises(ModelFailed, match="unknown in the llama architecture"):
        GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))


def test_refuses_unsupported_types_by_name(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    tiny_llama.extra_tensors["x"] = np.ones((4, 8), np.int8)
    with pytest.raises(ModelFailed, match=r"'x' has type I8; supported types are F32, F16, Q4_0"):
        GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))


def test_heads_that_do_not_fit_the_rows_are_refused(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    tiny_llama.metadata["llama.attention.head_count_kv"] = 4
    checkpoint = GgufCheckpoint(tiny_llama.write(tmp_path / "m.gguf"))
    with pytest.raises(ModelFailed, match=r"k_proj.*has shape"):
        checkpoint.tensor("model.layers.0.self_attn.k_proj.weight")


def header(values: bytes = b"", tensors: bytes = b"", value_count: int = 0, tensor_count: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, value_count) + values + tensors


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor_info(name: str, dimensions: list[int], number: int, offset: int) -> bytes:
    packed = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + packed + struct.pack("<IQ", number, offset)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"GG", "ends inside"),
        (b"PK\x03\x04" + bytes(40), "not a GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version"),
        (header(value_count=2**60), "ends inside"),
        (header(tensor_count=2**60), "ends inside"),
        (header(struct.pack("<Q", 2**63) + b"x", value_count=1), "ends inside"),
        (header(text("k") + struct.pack("<IIQ", 9, 0, 2**60), value_count=1), "ends inside"),
        (header(text("k") + struct.pack("<IIQ", 9, 8, 2**60), value_count=1), "ends inside"),
        (header(text("k") + struct.pack("<IIQ", 9, 9, 2**60), value_count=1), "unknown type"),
        (header(text("k") + struct.pack("<I", 99), value_count=1), "unknown type"),
        (header(struct.pack("<Q", 1) + b"\xff", value_count=1), "not UTF-8"),
        (header((text("k") + struct.pack("<II", 4, 1)) * 2, value_count=2), "twice"),
        (header(text("general.alignment") + struct.pack("<II", 4, 3), value_count=1), "power of two"),
        (header(tensors=tensor_info("a", [1] * 5, 0, 0), tensor_count=1), "5 dimensions"),
        (header(tensors=tensor_info("a", [2**40, 2**40], 0, 0), tensor_count=1), "ends before"),
        (header(tensors=tensor_info("a", [8], 0, 2**63), tensor_count=1), "ends before"),
        (header(tensors=tensor_info("a", [33], 3, 0), tensor_count=1), "impossible for Q4_1"),
        (header(tensors=tensor_info("a", [8], 77, 0), tensor_count=1), "type number 77"),
        (
            header(tensors=tensor_info("a", [8], 0, 0) + tensor_info("b", [8], 0, 16), tensor_count=2)
            + bytes(128),
            "overlap",
        ),
        (
            header(tensors=tensor_info("a", [8], 0, 0) + tensor_info("a", [8], 0, 32), tensor_count=2)
            + bytes(128),
            "twice",
        ),
    ],
)
def test_refuses_hostile_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFailed, match=words):
        GgufFile(path)


def test_every_truncation_is_refused(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    content = tiny_llama.write(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "short.gguf"
    for length in [*range(0, 3000, 97), len(content) // 2, len(content) - 64]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFailed):
            GgufFile(path)


def test_metadata_equals_the_packages_reader(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    path = tiny_llama.write(tmp_path / "m.gguf")
    fields = gguf.GGUFReader(path).fields
    expected = {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}
    assert dict(GgufFile(path).metadata) == expected


@pytest.mark.model
def test_opens_the_chat_starter(smollm2_path: Path) -> None:
    checkpoint = GgufCheckpoint(smollm2_path)
    assert checkpoint.config["num_hidden_layers"] == 30
    tensor = checkpoint.tensor("model.layers.29.self_attn.k_proj.weight")
    assert (tensor.format, tensor.shape, tensor.data.shape) == (TensorFormat.Q4_1, (192, 576), (192, 360))
    assert np.isfinite(dequantize(tensor)).all()
