from pathlib import Path

import pytest

from carpool.errors import ModelFailed
from carpool.models.gguf import GgufCheckpoint
from carpool.models.graph_directory import GraphDirectory
from carpool.models.open import open_checkpoint
from tests.unit.models.tiny_llama import TinyLlama


def test_opens_gguf_files(tmp_path: Path, tiny_llama: TinyLlama) -> None:
    assert isinstance(open_checkpoint(tiny_llama.write(tmp_path / "M.GGUF")), GgufCheckpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickle_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02.")
    with pytest.raises(ModelFailed, match=f"{name} is a pickle file, which is never opened"):
        open_checkpoint(tmp_path)
    with pytest.raises(ModelFailed, match=f"{name} is a pickle file, which is never opened"):
        open_checkpoint(tmp_path / name)


def test_openvino_weights_are_not_called_pickle(tmp_path: Path) -> None:
    (tmp_path / "openvino_model.bin").touch()
    (tmp_path / "openvino_model.xml").touch()
    with pytest.raises(ModelFailed, match=r"config\.json cannot be read"):
        open_checkpoint(tmp_path)
    (tmp_path / "openvino_model.xml").unlink()
    with pytest.raises(ModelFailed, match=r"openvino_model\.bin is a pickle file"):
        open_checkpoint(tmp_path)


def test_a_directory_with_a_graph_instead_of_tensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "hidden_size": 8}')
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    checkpoint = open_checkpoint(tmp_path)
    assert isinstance(checkpoint, GraphDirectory)
    assert (checkpoint.graph, checkpoint.path) == (tmp_path / "onnx" / "model.onnx", tmp_path)
    assert (checkpoint.architecture, checkpoint.config["hidden_size"]) == ("BertModel", 8)
    assert "embeddings.word_embeddings.weight" not in checkpoint
    with pytest.raises(ModelFailed, match="no tensor"):
        checkpoint.tensor("embeddings.word_embeddings.weight")


def test_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="does not exist"):
        open_checkpoint(tmp_path / "nothing.gguf")
