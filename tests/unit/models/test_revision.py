"""Which model a reference stands for: the same for the same files, another one for others."""

import os
import shutil
from pathlib import Path

import pytest

from carpool.models.reference import ModelReference
from carpool.models.revision import revision
from tests.unit.models.file_server import FileServer, publish_repository, serve
from tests.unit.models.test_hub import FILES, run

COMMIT = "fedcba9876543210" + "0" * 24


def of(reference: str, directory: Path) -> str | None:
    return revision(ModelReference.parse(reference), directory)


@pytest.mark.parametrize("reference", ["pypi:some-model==1.0", f"hf:org/name@{COMMIT}"])
def test_what_cannot_change_is_its_own_revision(tmp_path: Path, reference: str) -> None:
    assert of(reference, tmp_path) == reference


def test_a_branch_of_the_hub_is_the_commit_that_was_fetched(tmp_path: Path) -> None:
    with serve(FileServer()) as hub:
        publish_repository(hub, "org/name", FILES)
        assert of("hf:org/name", tmp_path) is None
        run(hub, "org/name", tmp_path)
        first = of("hf:org/name", tmp_path)
        assert first is not None
        assert first.startswith("hf:org/name@")
        assert of("hf:org/name", tmp_path) == first
        publish_repository(hub, "org/name", FILES, COMMIT)
        assert of("hf:org/name", tmp_path) == first
        shutil.rmtree(tmp_path / "hf")
        run(hub, "org/name", tmp_path)
        assert of("hf:org/name", tmp_path) == f"hf:org/name@{COMMIT}" != first


def test_a_local_file_is_another_model_once_it_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"first")
    first = of(str(file), tmp_path)
    assert of(str(file), tmp_path) == first
    other = tmp_path / "other.gguf"
    other.write_bytes(b"later")
    os.utime(other, ns=(0, 0))
    other.replace(file)
    assert of(str(file), tmp_path) != first


def test_a_local_directory_is_all_of_its_files(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    (directory / "1_Pooling").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights")
    seen = [of(str(directory), tmp_path)]
    (directory / "1_Pooling" / "config.json").write_text("{}")
    seen.append(of(str(directory), tmp_path))
    os.utime(directory / "model.safetensors", ns=(0, 0))
    seen.append(of(str(directory), tmp_path))
    assert len(set(seen)) == 3
    (directory / ".lock").touch()
    copied = shutil.copytree(directory, tmp_path / "copy")  # with its times
    assert of(str(copied), tmp_path) == of(str(directory), tmp_path) == seen[-1]
