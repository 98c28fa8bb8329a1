"""The hub client against a small stand-in for the hub, in processes because it reads its address once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carpool.models.open import open_checkpoint
from carpool.models.tokenizer import Tokenizer
from tests.unit.models.file_server import FileServer, hub_environment, publish_repository, serve
from tests.unit.models.tiny_vocabulary import write_vocabulary
from tests.unit.runtimes.tiny_decoders import DECODERS, VOCAB_SIZE

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"x" * 50_000,
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "x.Q4_1.gguf": b"GGUF",
}
SCRIPT = """
import sys
from pathlib import Path
from carpool.errors import CarpoolError
from carpool.models.reference import ModelReference
from carpool.models.source import fetch
last = []
try:
    print(fetch(ModelReference.parse(sys.argv[1]), Path(sys.argv[2]), last.append))
    print(last[-1].received_bytes if last else None)
except CarpoolError as error:
    print(f"{type(error).__name__}: {error.message}")
"""


@pytest.fixture
def hub() -> Iterator[FileServer]:
    with serve(FileServer()) as server:
        publish_repository(server, "org/name", FILES)
        yield server


def run(server: FileServer, reference: str, directory: Path) -> list[str]:
    command = [sys.executable, "-c", SCRIPT, reference, str(directory)]
    environment = {**os.environ, **hub_environment(server, directory)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def names_below(path: Path) -> set[str]:
    return {file.name for file in path.iterdir() if file.is_file()}


def test_fetches_safetensors_without_pickle_and_code(hub: FileServer, tmp_path: Path) -> None:
    path, received = run(hub, "org/name", tmp_path)
    assert names_below(Path(path)) == {"config.json", "model.safetensors"}
    assert int(received) == 50_002
    hub.requests.clear()
    assert run(hub, "org/name", tmp_path)[0] == path
    assert hub.requests == []


@pytest.mark.parametrize(
    ("reference", "tiny"),
    [("gpt2", "gpt2"), ("EleutherAI/gpt-neo-1.3B", "gpt-neo"), ("Qwen/Qwen3-0.6B", "qwen3")],
)
def test_names_people_know(hub: FileServer, tmp_path: Path, reference: str, tiny: str) -> None:
    """Repositories with and without an organisation, whole or in parts, and without tokenizer.json."""
    directory = DECODERS[tiny].write(tmp_path / "published", shards=1 if tiny == "gpt2" else 3)
    write_vocabulary(directory, VOCAB_SIZE)
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (directory / "pytorch_model.bin").write_bytes(b"pickle")
    publish_repository(hub, reference, {path.name: path.read_bytes() for path in directory.iterdir()})
    path = Path(run(hub, reference, tmp_path)[0])
    assert names_below(path) == {file.name for file in directory.iterdir()} - {"pytorch_model.bin"}
    checkpoint = open_checkpoint(path)
    assert checkpoint.architecture == DECODERS[tiny].architecture
    for name, weight in DECODERS[tiny].weights().items():
        assert checkpoint.tensor(name).data.tobytes() == weight.tobytes()
    assert Tokenizer.from_checkpoint(checkpoint).encode("the ride")[0] == 116


def test_repositories_of_pickle_files_are_refused(hub: FileServer, tmp_path: Path) -> None:
    publish_repository(hub, "org/old", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    (line,) = run(hub, "org/old", tmp_path)
    assert line == "ModelFailed: hf:org/old has no safetensors file, and pickle files are never fetched"


def test_fetches_one_named_gguf_file(hub: FileServer, tmp_path: Path) -> None:
    path, _ = run(hub, "hf:org/name/x.Q4_1.gguf", tmp_path)
    assert Path(path).name == "x.Q4_1.gguf"
    assert names_below(Path(path).parent) == {"x.Q4_1.gguf"}


def test_errors_are_one_line(hub: FileServer, tmp_path: Path) -> None:
    (line,) = run(hub, "org/missing", tmp_path)
    assert line.startswith("ModelFailed: hf:org/missing cannot be fetched: ")
    (line,) = run(hub, "hf:org/name/y.gguf", tmp_path)
    assert line == "ModelFailed: hf:org/name/y.gguf has no y.gguf"
    hub.url = "http://127.0.0.1:9"
    (line,) = run(hub, "org/offline", tmp_path)
    assert line.startswith("ModelFailed: hf:org/offline cannot be fetched: ")
