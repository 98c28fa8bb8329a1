"""The hub client against a small stand-in for the hub, in processes because it reads its address once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.models.file_server import FileServer, serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
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
    with serve(FileServer(headers={"X-Repo-Commit": COMMIT, "ETag": '"abc"'})) as server:
        tree = [
            {"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in FILES.items()
        ]
        info = {"id": "org/name", "sha": COMMIT, "siblings": []}
        server.files["/api/models/org/name/revision/main"] = ("application/json", json.dumps(info).encode())
        server.files[f"/api/models/org/name/tree/{COMMIT}"] = ("application/json", json.dumps(tree).encode())
        for name, data in FILES.items():
            server.files[f"/org/name/resolve/{COMMIT}/{name}"] = ("application/octet-stream", data)
        yield server


def run(server: FileServer, reference: str, directory: Path) -> list[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_XET": "1",
    }
    environment["HF_HOME"] = str(directory / "hub_home")
    command = [sys.executable, "-c", SCRIPT, reference, str(directory)]
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
