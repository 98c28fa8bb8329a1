import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carpool.errors import ModelFailed
from carpool.models.checkpoint import Checkpoint, TensorFormat
from carpool.models.safetensors import SafetensorsCheckpoint, SafetensorsFile

Write = Callable[..., Path]


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_every_supported_format(tmp_path: Path, write_safetensors: Write) -> None:
    f32 = np.arange(6, dtype="<f4").reshape(2, 3)
    f16 = np.arange(4, dtype="<f2")
    i64 = np.array(7, dtype="<i8")
    bf16 = b"\x80\x3f\x00\xc0"  # 1.0, -2.0
    path = write_safetensors(
        tmp_path / "m.safetensors",
        {
            "__metadata__": {"format": "pt"},
            "a": entry("F32", [2, 3], 0, 24),
            "b": entry("F16", [4], 24, 32),
            "c": entry("I64", [], 32, 40),
            "d": entry("BF16", [1, 2, 1], 40, 44),
            "e": entry("F32", [0, 5], 44, 44),
        },
        f32.tobytes() + f16.tobytes() + i64.tobytes() + bf16,
    )
    file = SafetensorsFile(path)
    assert file.names == {"a", "b", "c", "d", "e"}
    a = file.tensor("a")
    assert (a.name, a.format, a.shape, a.data.shape) == ("a", TensorFormat.F32, (2, 3), (2, 12))
    assert not a.data.flags.writeable
    np.testing.assert_array_equal(a.data.view("<f4"), f32)
    np.testing.assert_array_equal(file.tensor("b").data.view("<f2"), f16.reshape(1, 4))
    assert file.tensor("c").data.view("<i8").item() == 7
    assert file.tensor("d").data.shape == (2, 2)
    assert file.tensor("d").data.tobytes() == bf16
    assert file.tensor("e").data.shape == (0, 20)


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{", b"", "not JSON"),
        (b"[]", b"", "not a JSON object"),
        (b"[" * 100_000, b"", "not JSON"),
        (b"\xff\xfe", b"", "not JSON"),
        (b'{"a": {}, "a": {}}', b"", "twice"),
        ({"a": 1}, b"", "malformed"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", "malformed"),
        ({"a": entry("F32", [1], 0, 8)}, b"12345678", "but 8 bytes"),
        ({"a": entry("F32", [-1], 0, 4)}, b"1234", "malformed shape"),
        ({"a": entry("F32", [True], 0, 4)}, b"1234", "malformed shape"),
        ({"a": entry("F32", [2**62, 2**62], 0, 4)}, b"1234", "but 4 bytes"),
        ({"a": entry("F32", [1] * 9, 0, 4)}, b"1234", "malformed shape"),
        ({"a": entry("F32", [1], 4, 0)}, b"1234", "ends before"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, b"1234", "overlap"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 2, 6)}, b"123456", "overlap"),
        ({"a": entry("F32", [1], 4, 8)}, b"12345678", "holes"),
        ({"a": entry("F32", [1], 0, 4)}, b"123", "accounts for"),
        ({"a": entry("F32", [1], 0, 4)}, b"12345", "accounts for"),
        ({"a": entry("X9", [1], 0, 99)}, b"1234", "accounts for"),
    ],
)
def test_refuses_hostile_headers(
    tmp_path: Path, write_safetensors: Write, header: Any, data: bytes, words: str
) -> None:
    with pytest.raises(ModelFailed, match=words):
        SafetensorsFile(write_safetensors(tmp_path / "m.safetensors", header, data))


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 8, (100).to_bytes(8, "little") + b"{}"])
def test_refuses_truncated_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFailed, match=r"m\.safetensors"):
        SafetensorsFile(path)


def test_unsupported_type_is_refused_by_name_when_it_is_wanted(
    tmp_path: Path, write_safetensors: Write
) -> None:
    file = SafetensorsFile(write_safetensors(tmp_path / "m", {"a": entry("F8_E4M3", [2], 0, 2)}, b"12"))
    with pytest.raises(ModelFailed, match="'a' has type F8_E4M3; supported are F32, F16, BF16, I64"):
        file.tensor("a")


def make_directory(directory: Path, write: Write, files: dict[str, str]) -> Path:
    """A checkpoint whose files hold one F32 tensor each: {file name: tensor name}."""
    (directory / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 1}')
    for file_name, tensor_name in files.items():
        write(directory / file_name, {tensor_name: entry("F32", [1], 0, 4)}, b"1234")
    return directory


def test_checkpoint_of_one_file(tmp_path: Path, write_safetensors: Write) -> None:
    files = {"model.safetensors": "a", "other.safetensors": "b"}
    checkpoint: Checkpoint = SafetensorsCheckpoint(make_directory(tmp_path, write_safetensors, files))
    assert checkpoint.path == tmp_path
    assert checkpoint.architecture == "BertModel"
    assert checkpoint.config["hidden_size"] == 1
    assert "a" in checkpoint
    assert "b" not in checkpoint
    assert checkpoint.tensor("a").data.tobytes() == b"1234"
    with pytest.raises(ModelFailed, match="no tensor 'x'"):
        checkpoint.tensor("x")


def test_checkpoint_of_shards(tmp_path: Path, write_safetensors: Write) -> None:
    files = {"model-1.safetensors": "a", "model-2.safetensors": "b"}
    make_directory(tmp_path, write_safetensors, files)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    checkpoint = SafetensorsCheckpoint(tmp_path)
    assert "a" in checkpoint
    assert "b" in checkpoint
    assert checkpoint.tensor("b").name == "b"


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({}, "no weight_map"),
        ({"a": "../secret.safetensors"}, "not a file beside it"),
        ({"a": "/etc/passwd"}, "not a file beside it"),
        ({"a": 1}, "not a file beside it"),
        ({"a": "missing.safetensors"}, "cannot be read"),
        ({"x": "model-1.safetensors"}, "places tensor 'x'"),
    ],
)
def test_refuses_bad_indexes(
    tmp_path: Path, write_safetensors: Write, weight_map: dict[str, Any], words: str
) -> None:
    make_directory(tmp_path, write_safetensors, {"model-1.safetensors": "a"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelFailed, match=words):
        SafetensorsCheckpoint(tmp_path)


def test_files_without_an_index_must_not_share_names(tmp_path: Path, write_safetensors: Write) -> None:
    make_directory(tmp_path, write_safetensors, {"x.safetensors": "a", "y.safetensors": "a"})
    with pytest.raises(ModelFailed, match="in two files"):
        SafetensorsCheckpoint(tmp_path)


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"architectures": []}'])
def test_refuses_bad_configs(tmp_path: Path, write_safetensors: Write, config: str) -> None:
    make_directory(tmp_path, write_safetensors, {"model.safetensors": "a"})
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelFailed, match=r"config\.json"):
        SafetensorsCheckpoint(tmp_path)


@pytest.mark.model
def test_opens_the_embedding_starter(minilm_path: Path) -> None:
    checkpoint = SafetensorsCheckpoint(minilm_path)
    tensor = checkpoint.tensor("embeddings.word_embeddings.weight")
    assert tensor.shape == (30522, 384)
    assert tensor.data.shape == (30522, 1536)
