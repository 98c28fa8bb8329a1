from pathlib import Path

import pytest

from carpool.errors import ModelFailed
from carpool.models.gguf import GgufCheckpoint
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
    with pytest.raises(ModelFailed, match=r"no safetensors file$"):
        open_checkpoint(tmp_path)


def test_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="does not exist"):
        open_checkpoint(tmp_path / "nothing.gguf")
